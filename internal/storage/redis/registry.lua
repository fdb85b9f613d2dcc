-- read_registry reads what stands under the key of a queue: who holds locks of the cart and who waits. It returns nil
-- if the key holds something else, so that no script fails on it halfway.
local function read_registry(text)
  local good, r = pcall(cjson.decode, text)
  if not good or type(r) ~= 'table' or type(r.held) ~= 'table' or type(r.waiting) ~= 'table' then
    return nil
  end
  local function is_claim(x, ends)
    if type(x) ~= 'table' or type(x.token) ~= 'string' or type(x.holder) ~= 'string' or type(x.parts) ~= 'table'
      or type(x[ends]) ~= 'number' then
      return false
    end
    for _, p in ipairs(x.parts) do
      if type(p) ~= 'string' then
        return false
      end
    end
    return true
  end
  for _, h in ipairs(r.held) do
    if not is_claim(h, 'expires') then
      return nil
    end
  end
  for _, w in ipairs(r.waiting) do
    if not is_claim(w, 'alive') or type(w.lease) ~= 'number' or type(w.life) ~= 'number' or type(w.wake) ~= 'string' then
      return nil
    end
  end
  return r
end

