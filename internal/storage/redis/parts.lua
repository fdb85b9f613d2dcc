-- How parts overlap, and who holds them.

local TOKEN = 22 -- length of a token

local function overlap(a, b)
  for _, p in ipairs(a) do
    for _, q in ipairs(b) do
      if p == q or p == '*' or q == '*' then
        return true
      end
    end
  end
  return false
end

local function covers(held, want)
  local has = {}
  for _, p in ipairs(held) do
    has[p] = true
  end
  for _, p in ipairs(want) do
    if not has[p] and not has['*'] then
      return false
    end
  end
  return true
end

local function held_by_other(c, parts, token)
  for _, h in ipairs(c.held) do
    if h.token ~= token and overlap(h.parts, parts) then
      return true
    end
  end
  return false
end

-- reject removes in place the elements for which refuse returns true.
local function reject(list, refuse)
  local kept = 0
  for i = 1, #list do
    local v = list[i]
    list[i] = nil
    if not refuse(v) then
      kept = kept + 1
      list[kept] = v
    end
  end
end

