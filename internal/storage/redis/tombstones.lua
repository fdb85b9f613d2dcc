-- The metadata parts of a cart that were removed. The cart remembers their versions for a while.

local TOMBSTONES = 64 -- cart.MaxTombstones

-- before compares text by bytes. Lua's own comparison depends on the server's locale.
local function before(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then
      return x < y
    end
  end
  return #a < #b
end

-- tombstones are the metadata parts that were removed, with their versions.
local function tombstones(c)
  local there, versions = {}, {}
  local fields = c.stale and {} or redis.call('HKEYS', c.hash)
  for _, f in ipairs(fields) do
    there[f] = true
  end
  for _, f in ipairs(fields) do
    if string.sub(f, 1, 11) == 'v:metadata.' and not there[string.sub(f, 3)] then
      versions[#versions + 1] = f
    end
  end
  local removed = {n = #versions, at = {}}
  if #versions > 0 then
    for i, v in ipairs(gather('HMGET', c.hash, versions)) do
      removed.at[string.sub(versions[i], 3)] = tonumber(v)
    end
  end
  return removed
end

-- bury leaves a tombstone. When there are too many, the older half goes, by version and then by name, as in package
-- cart.
local function bury(c, fields, removed, part, version)
  if not removed.at[part] then
    removed.n = removed.n + 1
  end
  removed.at[part] = version
  if removed.n <= TOMBSTONES then
    return
  end
  local parts = {}
  for p in pairs(removed.at) do
    parts[#parts + 1] = p
  end
  table.sort(parts, function(a, b)
    local x, y = removed.at[a], removed.at[b]
    if x ~= y then
      return x < y
    end
    return before(a, b)
  end)
  for i = 1, math.floor(#parts / 2) do
    local p = parts[i]
    c.floor = math.max(c.floor, removed.at[p])
    removed.at[p] = nil
    removed.n = removed.n - 1
    fields['v:' .. p] = false
  end
  fields.floor = c.floor
end

