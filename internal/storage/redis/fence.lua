-- Return the last fence of a cart's name, after raising it if that is asked for. If no fence is kept, the clock passed
-- the last one more than MEMORY ago. Then the time MEMORY ago is at least as great.
--
-- KEYS: fence. ARGV: the fence to raise it to, '0' for none. Reply: the last fence, as text.

local MEMORY = 3600000 -- storage.LeaseMemory, in ms

local time = redis.call('TIME')
local raise = tonumber(ARGV[1])
local last = tonumber(redis.call('ZSCORE', KEYS[1], 'fence') or 0)
if raise > last then
  redis.call('ZADD', KEYS[1], ARGV[1], 'fence')
  last = raise
  -- The set ends MEMORY after the server's clock, which fences come from, has reached this fence.
  local ends = math.max(math.ceil(raise / 1000), time[1] * 1000) + MEMORY
  local left = redis.call('PTTL', KEYS[1])
  if left < 0 or time[1] * 1000 + left < ends then
    redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', ends))
  end
end
if last == 0 then
  last = time[1] * 1000000 + time[2] - MEMORY * 1000
end
return string.format('%.0f', last)
