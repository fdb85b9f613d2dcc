-- Calls with any number of arguments.

local CHUNK = 1000 -- arguments of one call; Lua's stack ends at some 8000

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

