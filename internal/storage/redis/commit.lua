-- Make one commit, or two in one step: all of them or none. First everything is checked, then everything is written, so
-- that no error leaves half a change behind. The rules are those of Apply in state.go of package storage.
--
-- KEYS: for each cart: cart, index of instances, queue, lock of the whole cart. Then, for one cart or in a Cluster, the
-- locks of the parts. At last, for each cart, its watch key. ARGV: number of commits, and for each, in this order
--   instance as in the key, id and version expected ('' and 0 for none), new id, steps, ttl (ms),
--   flags (f forget, p place, t touch, l lease demanded, r release, c and a: claim and again are for a lease, i look
--   whether the index lost the cart), token,
--   number of parts, parts,
--   number of expected part versions, their fields ('*' for that of the cart), the versions,
--   number of writes, part, step and value of each (step -1 or less: removed),
--   claim: token ('' for none, and then nothing more), holder, lease (ms), channel, life (ms),
--   number of parts, parts,
--   again: another claim,
--   with place: twice the number of fields, and field and value of each, all of the cart but indexed, and but updated
--   and expires unless the cart keeps them.
-- Reply, packed: for each commit a list of status (as storage.Status), granted, queued, milliseconds until it is worth
-- asking again, whether to poll, id, version before, created, updated, expires, cart (a list of fields and values, or
-- false).
--
-- Fields of a cart: id, version, created, updated, expires (ms, 0 for never); the documents items, conditions,
-- metadata.<key>, each with its version in v:<part>, which stays when a metadata key goes; s:metadata.<key> and seq
-- keep the order in which keys came; floor is the version of what is neither there nor remembered; transfer and
-- received are opaque, and so is ledger, whose v:ledger is no version of the cart: the step of its write is what to
-- store there; until is when the last open checkout in the ledger expires (ms, 0 for none); indexed tells until when
-- the index of instances is sure to live (0: for ever).

local NOT_TRIED, COMMITTED, CONFLICT, LOCKED, LOCK_LOST, LOCK_UNKNOWN = 0, 1, 2, 3, 4, 5

local function is_metadata(part)
  return string.sub(part, 1, 9) == 'metadata.'
end

local function read_commit(i)
  local m = {
    cart = open_cart(i), instance = arg(), id = arg(), version = tonumber(arg()), new_id = arg(),
    steps = tonumber(arg()), ttl = tonumber(arg()),
  }
  local flags = arg()
  if flags ~= '' then
    m.forget = string.find(flags, 'f', 1, true)
    m.touch = string.find(flags, 't', 1, true)
    m.lease = string.find(flags, 'l', 1, true)
    m.release = string.find(flags, 'r', 1, true)
    m.mends = string.find(flags, 'i', 1, true)
  end
  m.token = arg()
  m.parts = args()
  m.expect = args()
  m.versions = {}
  for j = 1, #m.expect do
    m.versions[j] = tonumber(arg())
  end
  m.writes = {}
  for j = 1, tonumber(arg()) do
    local w = {arg(), tonumber(arg()), arg()}
    m.writes[j] = w
    m.transfers = m.transfers or w[1] == 'transfer'
    m.removes = m.removes or (w[2] < 0 and is_metadata(w[1]))
  end
  m.claim = read_claim()
  if m.claim then
    m.claim.fence = string.find(flags, 'c', 1, true) and true
  end
  m.again = read_claim()
  if m.again then
    m.again.fence = string.find(flags, 'a', 1, true) and true
  end
  m.place = string.find(flags, 'p', 1, true) and args()
  return m
end

-- read fetches what the commit needs to know of the cart.
local function read(m)
  local c = m.cart
  local fields = {'id', 'version', 'created', 'updated', 'expires', 'indexed', 'transfer', 'floor', 'seq', 'until'}
  for _, field in ipairs(m.expect) do
    fields[#fields + 1] = field
  end
  for _, w in ipairs(m.writes) do
    if is_metadata(w[1]) then
      fields[#fields + 1] = 's:' .. w[1]
    end
  end
  local got = gather('HMGET', c.hash, fields)
  c.expires = tonumber(got[5])
  if got[1] and c.expires and c.expires ~= 0 and now >= c.expires then
    c.stale = true
    got = {}
  end
  c.id, c.version, c.created, c.updated, c.expires = got[1], tonumber(got[2] or 0), got[3], got[4], tonumber(got[5] or 0)
  c.indexed, c.transfer, c.floor, c.seq = tonumber(got[6]), got[7], tonumber(got[8] or 0), tonumber(got[9] or 0)
  c.ends_after = tonumber(got[10] or 0) or 0
  c.field = {}
  for i = 11, #fields do
    c.field[fields[i]] = tonumber(got[i])
  end
  if c.id then
    return c.version and c.version > 0 and tonumber(c.created) and tonumber(c.updated) and got[5] and c.expires
      and c.floor and c.seq
  end
  return c.stale or redis.call('EXISTS', c.hash) == 0
end

local function holds(m)
  local c = m.cart
  if m.id ~= (c.id or '') or (m.version ~= 0 and m.version ~= c.version) then
    return false
  end
  for i, field in ipairs(m.expect) do
    local is
    if field == '*' then
      is = c.version
    else
      is = c.field[field] or (string.sub(field, 1, 11) == 'v:metadata.' and c.floor) or 0
    end
    if is ~= m.versions[i] then
      return false
    end
  end
  return true
end

local function holds_any(m)
  for _, h in ipairs(m.cart.held) do
    if h.token == m.token then
      return true
    end
  end
  return false
end

-- check tells how a commit would end, and changes nothing.
local function check(m)
  local c = m.cart
  if m.lease and not holds_any(m) then
    return lost(c, m.token) and LOCK_LOST or LOCK_UNKNOWN
  end
  if held_by_other(c, m.parts, m.token) then
    return LOCKED
  end
  if not holds(m) or (c.transfer and not m.transfers) then
    return CONFLICT
  end
  return COMMITTED
end

-- place stores a whole cart in place of what is there.
local function place(m)
  local c, base = m.cart, m.cart.id and m.cart.version or 0
  local flat = m.place
  local new = {}
  for i = 1, #flat, 2 do
    if flat[i] == 'id' or flat[i] == 'created' or flat[i] == 'updated' or flat[i] == 'expires' or flat[i] == 'until' then
      new[flat[i]] = flat[i + 1]
    end
  end
  local updated = tonumber(new.updated) or now
  local ends = tonumber(new.expires) or (m.ttl > 0 and now + m.ttl or 0)
  c.expires = ends > 0 and math.max(ends, lease_end(c), tonumber(new['until']) or 0) or 0
  local last = c.expires == 0 and 0 or c.expires + m.ttl -- as in write
  for _, v in ipairs({'updated', updated, 'expires', c.expires, 'indexed', last}) do
    flat[#flat + 1] = v
  end
  redis.call('HSET', c.hash, 'updated', now) -- a full server refuses this but would not refuse DEL: see write
  redis.call('DEL', c.hash)
  spread('HSET', c.hash, flat)
  if c.expires ~= 0 then
    redis.call('PEXPIREAT', c.hash, c.expires - 1) -- see save.lua
  end
  index(c, m.instance, last)
  return new.id, base, tonumber(new.created), updated
end

-- write makes the change. It returns the cart's id, the version before, and its times but for the expiry. That is in
-- c.expires, since a lease that begins in the same step may put it off.
local function write(m)
  local c = m.cart
  local id, base = c.id or '', c.id and c.version or 0
  if m.forget then
    if c.id or c.stale then
      redis.call('DEL', c.hash)
      redis.pcall('SREM', c.index, m.instance)
    end
    c.expires = 0
    return id, base, 0, 0
  end
  if m.place then
    return place(m)
  end
  local creates = not c.id and m.steps > 0
  if not c.id and not creates then
    return '', 0, 0, 0
  end
  local fields = {} -- what to set; false to remove
  if creates then
    id, c.created = m.new_id, now
    fields.id, fields.created = id, now
  end
  if m.steps > 0 then
    c.updated = now
    fields.version, fields.updated = base + m.steps, now
  end
  local removed = m.removes and tombstones(c)
  for _, w in ipairs(m.writes) do
    local part, step, value = w[1], w[2], w[3]
    if not is_metadata(part) then
      fields[part] = step >= 0 and value
      if part == 'items' or part == 'conditions' then
        fields['v:' .. part] = base + step
      elseif part == 'ledger' then
        fields['v:ledger'] = step >= 0 and step
      end
    elseif step >= 0 then
      fields[part], fields['v:' .. part] = value, base + step
      if not c.field['s:' .. part] then
        c.seq = c.seq + 1
        c.field['s:' .. part] = c.seq
        fields['s:' .. part], fields.seq = c.seq, c.seq
      end
      if removed and removed.at[part] then
        removed.at[part] = nil
        removed.n = removed.n - 1
      end
    else
      c.field['s:' .. part] = nil
      fields[part], fields['s:' .. part], fields['v:' .. part] = false, false, base - step
      bury(c, fields, removed, part, base - step)
    end
  end
  local expires = c.expires
  local renews = m.steps > 0 or #m.writes > 0 or m.touch
  if renews then
    local ends_after = tonumber(fields['until']) or c.ends_after
    expires = m.ttl > 0 and math.max(now + m.ttl, lease_end(c), ends_after) or 0
    fields.expires = expires
    local indexed = not creates and c.indexed
    if not indexed or (indexed ~= 0 and (expires == 0 or expires > indexed)) then
      -- Twice the cart's life, so that the index need not be touched at every change.
      fields.indexed = expires == 0 and 0 or expires + m.ttl
    end
  end
  if c.stale then
    redis.call('DEL', c.hash)
  end
  -- The first thing that is written must be something that a full server refuses: Redis lets a script that has written
  -- go on.
  local set, del = {}, {}
  for f, v in pairs(fields) do
    if v then
      set[#set + 1] = f
      set[#set + 1] = v
    else
      del[#del + 1] = f
    end
  end
  if #set > 0 then
    spread('HSET', c.hash, set)
  end
  if #del > 0 then
    spread('HDEL', c.hash, del)
  end
  if renews then
    if expires ~= 0 then
      redis.call('PEXPIREAT', c.hash, expires - 1) -- see save.lua
    elseif not creates and c.expires ~= 0 then
      redis.call('PERSIST', c.hash)
    end
  end
  if fields.indexed then
    index(c, m.instance, fields.indexed)
  elseif renews and m.mends and redis.call('SISMEMBER', c.index, m.instance) == 0 then
    index(c, m.instance, c.indexed)
  end
  c.expires = expires
  return id, base, tonumber(c.created), tonumber(c.updated)
end

local n = arg()
n = (n == 'q' or n == 't') and 1 or tonumber(n)
local commits, status, failed = {}, {}, false
for i = 1, n do
  commits[i] = read_commit(i - 1)
end
for i, m in ipairs(commits) do
  local claim, again = m.claim and m.claim.parts or {}, m.again and m.again.parts or {}
  look(m.cart, m.parts, claim, again)
  if m.token ~= '' and not holds_any(m) then
    -- The token may be that of another program's lock on a part that is not changed here.
    m.cart = open_cart(i - 1)
    look(m.cart, {'*'}, m.parts, claim, again)
  end
  if m.again and m.again.fence then
    last_fence(m.cart)
  end
  if not read(m) then
    return redis.error_reply('CORRUPT ' .. m.cart.hash .. ' holds something that is no cart')
  end
  status[i] = check(m)
  failed = failed or status[i] ~= COMMITTED
end

local replies = {}
for i, m in ipairs(commits) do
  local c = m.cart
  local granted, queued, first, poll = false, false, -1, false
  local id, base, created, updated, expires, cart, altered = '', 0, 0, 0, 0, false, false
  if not failed then
    id, base, created, updated = write(m)
    if m.release and m.token ~= '' and #c.held + #c.waiting > 0 then
      local woken = #c.woken
      release(c, m.token)
      if m.again and #c.woken > woken then
        granted, queued = acquire(c, m.again)
        if queued then
          first, poll = outlook(c, m.again)
        end
      end
    end
    save(c)
    expires = c.expires
    altered = m.steps > 0 or m.forget or m.place
  elseif status[i] == COMMITTED then
    status[i] = NOT_TRIED
  else
    if m.claim and status[i] ~= LOCK_LOST and status[i] ~= LOCK_UNKNOWN then
      granted, queued = acquire(c, m.claim)
      save(c)
      if queued then
        first, poll = outlook(c, m.claim)
      end
    end
    -- A waiter is given the cart together with the lock.
    if status[i] == CONFLICT or (status[i] == LOCKED and not queued) then
      cart = snapshot(c)
    end
  end
  if altered then
    announce(redis.pcall('MGET', KEYS[#KEYS - n + i])[1])
  end
  replies[i] = {status[i], granted, queued, first, poll, id, base, created, updated, expires, cart}
end
for _, m in ipairs(commits) do
  wake(m.cart)
end
return cmsgpack.pack(replies)
