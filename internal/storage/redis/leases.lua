-- What is kept of leases. A lease is a hold with a fence. It is in the registry, which ends with its locks, and in a
-- sorted set that outlives it by MEMORY. The set has the lease's token, scored by the time when it ends or ended, and
-- the last fence under the name 'fence'. Only leases and claims for leases touch the set.

local MEMORY = 3600000 -- storage.LeaseMemory, in ms
local MAX_LOST = 1000 -- storage.MaxLost

local function leased(c, token)
  for _, h in ipairs(c.held) do
    if h.token == token and h.fence then
      return h
    end
  end
end

-- last_fence is the last fence that was given. A script that may give a fence reads it before anything is written,
-- since an error then does no harm.
local function last_fence(c)
  c.last = c.last or tonumber(redis.call('ZSCORE', c.fence, 'fence') or 0)
  return c.last
end

-- next_fence rises with the clock, so that it also rises after the server has lost the last fence with all else. If the
-- clock does not rise, it rises by one. It is text, since cjson writes numbers with 14 digits.
local function next_fence(c)
  c.last = math.max(last_fence(c) + 1, time[1] * 1000000 + time[2])
  c.given = true
  return string.format('%.0f', c.last)
end

-- lost says whether a token that holds nothing had a lease that is remembered. A lease that was taken away may have its
-- end still to come.
local function lost(c, token)
  redis.call('SETRANGE', c.queue, 0, '') -- changes nothing, but fails on a replica, whose data may be old
  local ends = tonumber(redis.call('ZSCORE', c.fence, token) or 0)
  if token == 'fence' or now >= ends + MEMORY then
    return false
  end
  return redis.call('ZCOUNT', c.fence, '-inf', now) - redis.call('ZRANK', c.fence, token) <= MAX_LOST
end

-- save_leases writes the set that outlives the leases, if a lease began, was renewed or ended before its time. c.ends
-- is the last end of the leases that were granted, including those that are not entered in the set yet.
local function save_leases(c)
  local last = c.ends or 0
  for token, ends in pairs(c.leases) do
    if ends then
      redis.call('ZADD', c.fence, ends, token)
      last = math.max(last, ends)
    else
      redis.call('ZREM', c.fence, token)
    end
  end
  if c.given then
    redis.call('ZADD', c.fence, string.format('%.0f', c.last), 'fence')
  end
  if last == 0 then
    return
  end
  redis.call('ZREMRANGEBYSCORE', c.fence, '-inf', now - MEMORY)
  local over = redis.call('ZCOUNT', c.fence, '-inf', now) - MAX_LOST
  if over > 0 then
    redis.call('ZPOPMIN', c.fence, over)
  end
  local left = redis.call('PTTL', c.fence)
  if left < 0 or now + left < last + MEMORY then
    redis.call('PEXPIREAT', c.fence, last + MEMORY)
  end
end

