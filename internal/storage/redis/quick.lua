-- The ordinary commit, written out: one cart that exists, items or conditions written, and nobody
-- holds or waits for anything. It stands before everything else in commit.lua and takes its
-- KEYS and ARGV, with 'q' for the number of commits where the caller sees that the request is of
-- this kind. Whatever else it meets, it has written nothing and leaves it to the general
-- way below. It is worth its lines: to set up the general way takes several times
-- as long as all of this.
--
-- Reply: '+' and version before, created, updated and expires, separated by spaces.

if ARGV[1] == 'q' then
  -- Queue, lock of the whole cart, locks of the parts.
  local locks, free = redis.call('MGET', unpack(KEYS, 3)), true
  for i = 1, #KEYS - 2 do
    free = free and not locks[i]
  end
  if free then
    local at = 11 + ARGV[10] -- number of expected part versions
    local n = tonumber(ARGV[at])
    local got = redis.call('HMGET', KEYS[1], 'id', 'version', 'created', 'expires', 'indexed', 'transfer',
      unpack(ARGV, at + 1, at + n))
    local time = redis.call('TIME')
    local ms = time[1] .. string.sub('00000' .. time[2], -6, -4)
    local now, base, expires, indexed = tonumber(ms), tonumber(got[2]), tonumber(got[4]), tonumber(got[5])
    local good = got[1] == ARGV[3] and base and got[3] and expires and indexed and not got[6]
      and (expires == 0 or now < expires) and (ARGV[4] == '0' or ARGV[4] == got[2])
    for i = 1, n do
      good = good and (got[6 + i] or '0') == ARGV[at + n + i]
    end
    local ttl = tonumber(ARGV[7])
    if good and ttl > 0 and (indexed == 0 or now + ttl <= indexed) then
      expires = now + ttl
      local ends = string.format('%d', expires)
      local version = string.format('%d', base + ARGV[6])
      local set, k = {'version', version, 'updated', ms, 'expires', ends}, 6
      at = at + 2 * n + 1
      for i = at + 1, at + 3 * ARGV[at], 3 do
        local part, step = ARGV[i], ARGV[i + 1]
        set[k + 1], set[k + 2], set[k + 3] = part, ARGV[i + 2], 'v:' .. part
        set[k + 4] = step == ARGV[6] and version or string.format('%d', base + step)
        k = k + 4
      end
      redis.call('HSET', KEYS[1], unpack(set))
      redis.call('PEXPIREAT', KEYS[1], expires - 1) -- see save in locks.lua
      return '+' .. got[2] .. ' ' .. got[3] .. ' ' .. ms .. ' ' .. ends
    end
  end
end
