-- A node returns claims to the shared queue: {{number, started, prompt, answer}, ...}.
-- ARGS: inc, node, bases, items, max_attempts. Returns {'ok', returned, dead} or {'fenced'}.
if not alive(ARGS.inc) then return reply('fenced') end
local claims = P .. 'claims:' .. ARGS.inc
local entries = {}
for _, item in ipairs(ARGS.items) do
  local value = redis.call('HGET', claims, item[1])
  if value then
    redis.call('HDEL', claims, item[1])
    entries[#entries + 1] = { value = value, started = item[2], prompt = item[3], answer = item[4] }
  end
end
local returned, dead = return_claims(entries, ARGS.node)
for _, base in ipairs(ARGS.bases) do nudge(base) end
return reply('ok', returned, dead)
