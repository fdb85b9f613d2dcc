-- The two ordinary commits, written out. Both are of one cart that exists, whose items or conditions are written. 'q',
-- in place of the number of commits: nobody holds or waits for anything. 't': the caller has the turn over one part,
-- others wait for just that, the next of them is let in, and the caller goes to the end of the queue. In neither case
-- is there a lease that the cart would have to outlive: it would be in the queue's key as another hold. This stands
-- before everything else in commit.lua and takes its KEYS and ARGV. Whatever else it meets, it has written nothing and
-- leaves it to the general way below. It is worth its lines: to set up the general way takes several times as long as
-- all of this.
--
-- Reply: '+' and version before, created, updated and expires, separated by spaces; with the turn, also the
-- milliseconds until the first of those before the caller ends by itself.

if ARGV[1] == 'q' or ARGV[1] == 't' then
  local hash, index, queue, part_lock = KEYS[1], KEYS[2], KEYS[3], KEYS[5]
  local instance, id, version, steps, ttl, flags, token = ARGV[2], ARGV[3], ARGV[4], ARGV[6], tonumber(ARGV[7]), ARGV[8], ARGV[9]
  local part = ARGV[11] -- the first part, which is the only one with the turn
  local time = redis.call('TIME')
  local ms = time[1] .. string.sub('00000' .. time[2], -6, -4)
  local now = tonumber(ms)
  -- Queue, lock of the whole cart, locks of the parts.
  local locks, mine, turn = redis.call('MGET', unpack(KEYS, 3)), true, nil
  local expects = 11 + ARGV[10] -- number of expected part versions
  local n = tonumber(ARGV[expects])
  local writes = expects + 2 * n + 1 -- number of writes
  local last_write = writes + 3 * ARGV[writes]
  local again = last_write + 1
  if ARGV[again] ~= '' then
    again = again + 6 -- the claim, of one part
  end
  again = again + 1
  if ARGV[1] == 'q' then
    for i = 1, #KEYS - 2 do
      mine = mine and not locks[i]
    end
  else
    mine = locks[1] and not locks[2] and locks[3] and string.sub(locks[3], 1, 22) == token
    if mine then
      turn = read_registry(locks[1])
      local h = turn and turn.held[1]
      mine = h and #turn.held == 1 and h.token == token and now < h.expires and #h.parts == 1 and h.parts[1] == part
        and #turn.waiting > 0 and not h.fence and not turn.waiting[1].fence
        and turn.waiting[1].lease <= turn.waiting[1].life
      for _, w in ipairs(mine and turn.waiting or {}) do
        mine = mine and #w.parts == 1 and w.parts[1] == part and now < w.alive and w.token ~= ARGV[again]
      end
    end
  end
  if mine then
    local got = redis.call('HMGET', hash, 'id', 'version', 'created', 'expires', 'indexed', 'transfer',
      unpack(ARGV, expects + 1, expects + n))
    local base, expires, indexed = tonumber(got[2]), tonumber(got[4]), tonumber(got[5])
    local good = got[1] == id and base and got[3] and expires and indexed and not got[6]
      and (expires == 0 or now < expires) and (version == '0' or version == got[2])
    for i = 1, n do
      good = good and (got[6 + i] or '0') == ARGV[expects + n + i]
    end
    if good and flags ~= '' and string.find(flags, 'i', 1, true) then
      good = redis.call('SISMEMBER', index, instance) == 1
    end
    if good and ttl > 0 and (indexed == 0 or now + ttl <= indexed) then
      expires = now + ttl
      local ends = string.format('%d', expires)
      local new_version = string.format('%d', base + steps)
      local set, k = {'version', new_version, 'updated', ms, 'expires', ends}, 6
      for i = writes + 1, last_write, 3 do
        local field, step = ARGV[i], ARGV[i + 1]
        set[k + 1], set[k + 2], set[k + 3] = field, ARGV[i + 2], 'v:' .. field
        set[k + 4] = step == steps and new_version or string.format('%d', base + step)
        k = k + 4
      end
      redis.call('HSET', hash, unpack(set))
      redis.call('PEXPIREAT', hash, expires - 1) -- see save in locks.lua
      local reply = '+' .. got[2] .. ' ' .. got[3] .. ' ' .. ms .. ' ' .. ends
      if not turn then
        return reply
      end

      local last = {
        token = ARGV[again], holder = ARGV[again + 1], lease = tonumber(ARGV[again + 2]), wake = ARGV[again + 3],
        life = tonumber(ARGV[again + 4]), parts = {part},
      }
      last.alive = now + last.life
      local next = table.remove(turn.waiting, 1)
      local over = now + next.lease
      local first, longest = next.lease, math.max(over, last.alive)
      for _, w in ipairs(turn.waiting) do
        first, longest = math.min(first, w.alive - now), math.max(longest, w.alive)
      end
      turn.waiting[#turn.waiting + 1] = last
      turn.held[1] = {token = next.token, holder = next.holder, parts = next.parts, expires = over}
      redis.call('SET', part_lock, next.token .. next.holder, 'PXAT', string.format('%d', over - 1))
      redis.call('SET', queue, cjson.encode(turn), 'PXAT', string.format('%d', longest + 1000))
      local flat = false
      if redis.call('HSTRLEN', hash, 'items') + redis.call('HSTRLEN', hash, 'conditions') <= 16384
        and redis.call('HLEN', hash) <= 200 then
        flat = redis.call('HGETALL', hash)
      end
      local message = cmsgpack.pack({next.token, flat})
      if #message > 32768 then -- as in locks.lua
        message = cmsgpack.pack({next.token, false})
      end
      redis.pcall('PUBLISH', next.wake, message)
      return reply .. ' ' .. string.format('%d', first)
    end
  end
end
