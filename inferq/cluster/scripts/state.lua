-- uses: base queues nodes loads records recovery
-- A node becomes ready, begins to drain, or leaves.
-- ARGS: node, inc, state, limit (longest request it can hold, tokens), bases, and what recovery needs.
-- Returns {'ok'} or {'fenced'}.
if not alive(ARGS.inc) then return refuse(ARGS.inc) end
if ARGS.state == 'gone' then
  end_incarnation(ARGS.inc, now_ms())
  return reply('ok')
end
redis.call('HSET', P .. 'states', ARGS.node, ARGS.state)
if ARGS.state == 'ready' then
  redis.call('ZADD', P .. 'limits', ARGS.limit, ARGS.node)
  return reply('ok')
end
-- Draining: nobody sends to its queue any more, and what waits there goes elsewhere.
redis.call('ZREM', P .. 'limits', ARGS.node)
redis.call('ZREM', load_key(ARGS.node), ARGS.node)
unpark(ARGS.inc)
local found = return_all_staged(ARGS.inc) > 0
for _, base in ipairs(ARGS.bases) do found = release_queue(base, ARGS.node) or found end
if found then announce() end
return reply('ok')
