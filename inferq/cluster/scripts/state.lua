-- A node becomes ready, begins to drain, or leaves.
-- ARGS: node, inc, state, limit (longest request it can hold, tokens), bases, max_attempts, grave_ms.
-- Returns {'ok'} or {'fenced'}.
if not alive(ARGS.inc) then return reply('fenced') end
if ARGS.state == 'gone' then
  end_incarnation(ARGS.inc, now_ms())
  return reply('ok')
end
redis.call('HSET', P .. 'states', ARGS.node, ARGS.state)
if ARGS.state == 'ready' then
  redis.call('HSET', P .. 'incs', ARGS.node, ARGS.inc)
  redis.call('ZADD', P .. 'limits', ARGS.limit, ARGS.node)
  return reply('ok')
end
-- Draining: nobody sends to its queue any more, and what waits there goes elsewhere.
redis.call('ZREM', P .. 'limits', ARGS.node)
redis.call('SREM', P .. 'parked', ARGS.inc)
redis.call('ZREM', load_key(ARGS.node), ARGS.node)
for _, base in ipairs(ARGS.bases) do
  release_queue(base, ARGS.node)
  return_staged(base, ARGS.inc)
  nudge(base)
end
return reply('ok')
