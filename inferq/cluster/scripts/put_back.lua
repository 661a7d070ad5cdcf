-- uses: base queues nodes loads records work recovery
-- A node returns claims to the shared queue: {{claim, started, prompt, answer}, ...}.
-- ARGS: inc, node, items, bases, and what recovery needs. Returns {'ok', returned, dead} or {'fenced'}.
if not alive(ARGS.inc) then return refuse(ARGS.inc) end
local claims = P .. 'claims:' .. ARGS.inc
local entries, ended = {}, {}
for _, item in ipairs(ARGS.items) do
  local value = redis.call('HGET', claims, item[1])
  if value then
    redis.call('HDEL', claims, item[1])
    ended[#ended + 1] = item[1]
    entries[#entries + 1] = { value = value, started = item[2], prompt = item[3], answer = item[4] }
  end
end
local returned, dead = return_claims(entries, ARGS.node, ARGS.inc)
release_pledges(ARGS.inc, ARGS.node, ended)
write_work()
if returned > 0 then announce_all() end
return reply('ok', returned, dead)
