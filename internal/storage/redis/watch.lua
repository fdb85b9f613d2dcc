-- Tell the sidecars that watch a cart that it has changed. They have put into its watch key the channel on which they
-- hear of it, behind 's' where that is a shard channel, or 'p'. So a commit on a cart that nobody watches only finds
-- that there is no such key. A message may get lost, since those who watch also ask by themselves.
local function announce(interest)
  if type(interest) == 'string' then
    redis.pcall(string.sub(interest, 1, 1) == 's' and 'SPUBLISH' or 'PUBLISH', string.sub(interest, 2), '')
  end
end

