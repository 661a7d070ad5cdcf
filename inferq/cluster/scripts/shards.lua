-- uses: base loads
-- Change the number of shards of the load table; its rows move with it. ARGS: shards. Returns {'ok', rows}.
local rows = {}
for shard = 0, shards() - 1 do
  local key = P .. 'load:' .. shard
  local flat = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  for i = 1, #flat, 2 do rows[#rows + 1] = { flat[i], flat[i + 1] } end
  redis.call('DEL', key)
end
set_shards(ARGS.shards)
for _, row in ipairs(rows) do redis.call('ZADD', load_key(row[1]), row[2], row[1]) end
return reply('ok', #rows)
