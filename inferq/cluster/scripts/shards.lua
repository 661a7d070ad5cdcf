-- uses: base loads
-- Change the number of shards of the load tables; their rows move with it. ARGS: shards, bases. Returns {'ok', rows}.
local rows = {}
for _, base in ipairs(ARGS.bases) do
  for shard = 0, shards() - 1 do
    local key = load_table(base, shard)
    local flat = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for i = 1, #flat, 2 do rows[#rows + 1] = { base, flat[i], flat[i + 1] } end
    redis.call('DEL', key)
  end
end
set_shards(ARGS.shards)
for _, row in ipairs(rows) do
  local base, node, load = unpack(row)
  redis.call('ZADD', load_key(base, node), load, node)
end
return reply('ok', #rows)
