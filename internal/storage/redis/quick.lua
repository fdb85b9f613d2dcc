-- The two ordinary commits, written out. Both are of one cart that exists, whose items or conditions are written. 'q',
-- in place of the number of commits: nobody holds or waits for anything. 't': the caller has the turn over one part,
-- others wait for just that, the next of them is let in, and the caller goes to the end of the queue. In neither case
-- is there a lease that the cart would have to outlive: it would be in the queue's key as another hold. This stands
-- before everything else in commit.lua. In all other cases it writes nothing and leaves the commit to the general way
-- below. It is worth its lines: just setting up the general way takes several times as long as all of this.
--
-- KEYS, ARGV: those of commit.lua, of one commit. Both claims are of one part. Reply: '+' and version before, created,
-- updated and expires, separated by spaces; with the turn, also the milliseconds until the first of those before the
-- caller ends by itself.

if ARGV[1] == 'q' or ARGV[1] == 't' then
  local in_turn = ARGV[1] == 't'
  local hash, index, queue, part_lock = KEYS[1], KEYS[2], KEYS[3], KEYS[5]
  local instance, id, version, steps, ttl, flags, token = ARGV[2], ARGV[3], ARGV[4], ARGV[6], tonumber(ARGV[7]), ARGV[8], ARGV[9]
  local parts, part = ARGV[10], ARGV[11] -- their number, and the first, which is the only one with the turn
  -- Where the rest begins: each list stands behind the number of its elements, and a claim has seven arguments or one.
  local at_expected = 11 + parts
  local expected = tonumber(ARGV[at_expected])
  local at_fields, at_versions = at_expected + 1, at_expected + 1 + expected
  local at_written = at_versions + expected
  local at_writes = at_written + 1
  local at_claim = at_writes + 3 * ARGV[at_written]
  local at_again = at_claim + (ARGV[at_claim] == '' and 1 or 7)
  local again = ARGV[at_again] -- its token

  local time = redis.call('TIME')
  local ms = time[1] .. string.sub('00000' .. time[2], -6, -4)
  local now = tonumber(ms)

  -- Whether the locks are as such a commit needs them.
  local locks = redis.call('MGET', unpack(KEYS, 3)) -- queue, lock of the whole cart, locks of the parts, watch key
  local free, turn = true, nil
  if in_turn then
    local registry, cart_lock, held = locks[1], locks[2], locks[3]
    free = registry and not cart_lock and held and string.sub(held, 1, 22) == token
    if free then
      turn = read_registry(registry)
      local mine, next = turn and turn.held[1], turn and turn.waiting[1]
      free = mine and #turn.held == 1 and mine.token == token and now < mine.expires and #mine.parts == 1 and mine.parts[1] == part
        and next and not mine.fence and not next.fence and next.lease <= next.life
      for _, w in ipairs(free and turn.waiting or {}) do
        free = free and #w.parts == 1 and w.parts[1] == part and now < w.alive and w.token ~= again
      end
    end
  else
    for i = 1, #KEYS - 3 do
      free = free and not locks[i]
    end
  end

  if free then
    -- Whether the cart is as expected.
    local got = redis.call('HMGET', hash, 'id', 'version', 'created', 'expires', 'indexed', 'transfer',
      'until', unpack(ARGV, at_fields, at_versions - 1))
    local got_id, got_version, created, transfer = got[1], got[2], got[3], got[6]
    local base, expires, indexed = tonumber(got_version), tonumber(got[4]), tonumber(got[5])
    local good = got_id == id and base and created and expires and indexed and not transfer
      and (expires == 0 or now < expires) and (version == '0' or version == got_version)
    for i = 1, expected do
      good = good and (got[7 + i] or '0') == ARGV[at_versions + i - 1]
    end
    if good and flags ~= '' and string.find(flags, 'i', 1, true) then
      good = redis.call('SISMEMBER', index, instance) == 1
    end
    local ends = math.max(now + ttl, tonumber(got[7] or 0) or 0) -- not before the last open checkout
    if good and ttl > 0 and (indexed == 0 or ends <= indexed) then
      -- The change.
      expires = ends
      local ends = string.format('%d', expires)
      local new_version = string.format('%d', base + steps)
      local set, k = {'version', new_version, 'updated', ms, 'expires', ends}, 6
      for i = at_writes, at_claim - 1, 3 do
        local field, step, value = ARGV[i], ARGV[i + 1], ARGV[i + 2]
        set[k + 1], set[k + 2], set[k + 3] = field, value, 'v:' .. field
        set[k + 4] = step == steps and new_version or string.format('%d', base + step)
        k = k + 4
      end
      redis.call('HSET', hash, unpack(set))
      redis.call('PEXPIREAT', hash, expires - 1) -- see save.lua
      announce(locks[#KEYS - 2])
      local reply = '+' .. got_version .. ' ' .. created .. ' ' .. ms .. ' ' .. ends
      if not in_turn then
        return reply
      end

      -- The turn of the next.
      local last = {
        token = again, holder = ARGV[at_again + 1], lease = tonumber(ARGV[at_again + 2]), wake = ARGV[at_again + 3],
        life = tonumber(ARGV[at_again + 4]), parts = {part},
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
      if #message > 32768 then -- as in wake.lua
        message = cmsgpack.pack({next.token, false})
      end
      redis.pcall('PUBLISH', next.wake, message)
      return reply .. ' ' .. string.format('%d', first)
    end
  end
end
