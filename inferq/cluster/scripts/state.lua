-- uses: base queues nodes loads records work recovery
-- A node becomes ready for some phases, begins to drain, or leaves.
-- ARGS: node, inc, state, limits (if ready: {{base, longest request it can hold there, tokens}, ...}), bases, and what
-- recovery needs. Returns {'ok'} or {'fenced'}.
if not alive(ARGS.inc) then return refuse(ARGS.inc) end
if ARGS.state == 'gone' then
  end_incarnation(ARGS.inc, now_ms())
  return reply('ok')
end
redis.call('HSET', P .. 'states', ARGS.node, ARGS.state)
local served = {}
if ARGS.state == 'ready' then
  for _, limit in ipairs(ARGS.limits) do
    served[limit[1]] = true
    redis.call('ZADD', P .. 'limits:' .. limit[1], limit[2], ARGS.node)
  end
end
-- It parks again, for the phases that it serves now, after its next look.
unpark(ARGS.inc)
local found = {}
if return_staged(ARGS.inc) > 0 then found[ARGS.bases[1]] = true end
for _, base in ipairs(ARGS.bases) do
  if not served[base] then found[base] = leave_phase(base, ARGS.node) or found[base] end
end
for base, any in pairs(found) do
  if any then announce(base) end
end
return reply('ok')
