-- What all scripts share: the time, their arguments, and names.

local TOKEN = 22 -- length of a token
local CHUNK = 1000 -- arguments of one call; Lua's stack ends at some 8000

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local at = 0
local function arg()
  at = at + 1
  return ARGV[at]
end

local function args()
  local list = {}
  for i = 1, tonumber(arg()) do
    list[i] = arg()
  end
  return list
end

-- read_claim reads a claim; its token is '' where there is none.
local function read_claim()
  local token = arg()
  if token == '' then
    return nil
  end
  return {
    token = token, holder = arg(), lease = tonumber(arg()), wake = arg(), life = tonumber(arg()), parts = args(),
  }
end

-- gather calls MGET, or HMGET and the like with a first argument, for any number of names.
local function gather(command, first, names)
  if #names <= CHUNK then
    if first then
      return redis.call(command, first, unpack(names))
    end
    return redis.call(command, unpack(names))
  end
  local all = {}
  for from = 1, #names, CHUNK do
    local chunk = {}
    for i = from, math.min(from + CHUNK - 1, #names) do
      chunk[#chunk + 1] = names[i]
    end
    for _, v in ipairs(gather(command, first, chunk)) do
      all[#all + 1] = v
    end
  end
  return all
end

-- spread calls a writing command with any number of arguments after its key.
local function spread(command, key, list)
  for from = 1, #list, CHUNK do
    redis.call(command, key, unpack(list, from, math.min(from + CHUNK - 1, #list)))
  end
end

-- The twin of escapeLock in keys.go: metadata keys of a cart are found here.
local ESCAPED = {['%'] = '%25', ['.'] = '%2E', ['{'] = '%7B', ['}'] = '%7D'}
local RESERVED = {items = '%69tems', conditions = '%63onditions', metadata = '%6Detadata'}

local function lock_key(c, part)
  if part == '*' then
    return c.lock
  end
  if part == 'items' or part == 'conditions' then
    return c.lock .. '.' .. part
  end
  local key = string.sub(part, 10) -- behind 'metadata.'
  return c.lock .. '.metadata.' .. (RESERVED[key] or (string.gsub(key, '[%%.{}]', ESCAPED)))
end

