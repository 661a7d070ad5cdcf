-- Claims that cannot be run become dead letters: {{number, id, reason, detail}, ...}.
-- ARGS: inc, node, items, max_dead. Returns {'ok'} or {'fenced'}.
if not alive(ARGS.inc) then return reply('fenced') end
local claims = P .. 'claims:' .. ARGS.inc
for _, item in ipairs(ARGS.items) do
  local value = redis.call('HGET', claims, item[1])
  if value then
    redis.call('HDEL', claims, item[1])
    local key, raw = split_claim(value)
    local e = parse(raw)
    bury(raw, e.id, key, item[3], e.attempt, ARGS.node, item[4])
  end
end
return reply('ok')
