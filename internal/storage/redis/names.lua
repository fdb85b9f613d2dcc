-- The keys of locks.

-- This must match escapeLock in keys.go. Scripts need it since they find the metadata keys of a cart themselves.
local ESCAPED = {['%'] = '%25', ['.'] = '%2E', ['{'] = '%7B', ['}'] = '%7D'}
local RESERVED = {items = '%69tems', conditions = '%63onditions', metadata = '%6Detadata'}

local function lock_key(c, part)
  if part == '*' then
    return c.lock
  end
  if part == 'items' or part == 'conditions' then
    return c.lock .. '.' .. part
  end
  local key = string.sub(part, 10) -- the rest after 'metadata.'
  return c.lock .. '.metadata.' .. (RESERVED[key] or (string.gsub(key, '[%%.{}]', ESCAPED)))
end

