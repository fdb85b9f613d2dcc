-- The arguments of a script, read one after the other.

local at = 0
local function arg()
  at = at + 1
  return ARGV[at]
end

local function args()
  local list = {}
  for i = 1, tonumber(arg()) do
    list[i] = arg()
  end
  return list
end

-- read_claim reads a claim. Its token is '' if there is none.
local function read_claim()
  local token = arg()
  if token == '' then
    return nil
  end
  return {
    token = token, holder = arg(), lease = tonumber(arg()), wake = arg(), life = tonumber(arg()), parts = args(),
  }
end

