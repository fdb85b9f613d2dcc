-- Prove that a commit could work: scripts run, and writes are allowed. SETRANGE of nothing changes nothing, but is
-- refused where a real write would be: by a replica, by a server that is out of memory or cannot save.
--
-- KEYS: a key that nobody uses. Reply: 0.

return tostring(redis.call('SETRANGE', KEYS[1], 0, ''))
