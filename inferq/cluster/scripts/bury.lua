-- uses: base queues nodes loads records work recovery
-- Claims that cannot be run become dead letters; their origins are told.
-- ARGS: inc, node, items, and what recovery needs. items: {{claim, reason, detail}, ...}.
-- Returns {'ok'} or {'fenced'}.
if not alive(ARGS.inc) then return refuse(ARGS.inc) end
local claims = P .. 'claims:' .. ARGS.inc
local ended = {}
for _, item in ipairs(ARGS.items) do
  local value = redis.call('HGET', claims, item[1])
  if value then
    redis.call('HDEL', claims, item[1])
    ended[#ended + 1] = item[1]
    local key, raw = split_claim(value)
    bury(parse(raw), key, item[2], item[3], ARGS.node, ARGS.inc)
  end
end
release_pledges(ARGS.inc, ARGS.node, ended)
write_work()
return reply('ok')
