-- What scripts write of locks and the queue.

-- save writes locks and queue if anything changed. Keys end one millisecond early: Redis drops a key only after its
-- time, and by the contract a lock is over at the instant of its end.
local function save(c)
  if not c.dirty then
    return
  end
  c.saved = true
  for p in pairs(c.touched) do
    local best
    for _, h in ipairs(c.held) do
      if not h.foreign and (not best or h.expires > best.expires) then
        for _, q in ipairs(h.parts) do
          if p == q then
            best = h
          end
        end
      end
    end
    if best then
      redis.call('SET', lock_key(c, p), best.token .. best.holder, 'PXAT', best.expires - 1)
    else
      redis.call('DEL', lock_key(c, p))
    end
  end
  local held, last = {}, 0
  for _, h in ipairs(c.held) do
    if not h.foreign then
      held[#held + 1] = h
      last = math.max(last, h.expires)
    end
  end
  for _, w in ipairs(c.waiting) do
    last = math.max(last, w.alive)
  end
  if last > 0 then
    -- The registry outlives its locks, since a lock key without it would count as another program's.
    redis.call('SET', c.queue, cjson.encode({held = held, waiting = c.waiting}), 'PXAT', last + 1000)
  elseif c.registry then
    redis.call('DEL', c.queue)
  end
  save_leases(c)
  outlive(c)
end

