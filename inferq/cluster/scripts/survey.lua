-- uses: base
-- What is to be seen of nodes and of queues. Changes nothing.
-- ARGS: nodes, queues, max_record. Returns {'ok', now, node_rows, queue_rows}; node_rows: {{record ('' when it is longer
-- than max_record bytes), claims}, ...}; queue_rows: {{{length by step, ...}, submitted}, ...}; submitted: the earliest
-- time of the first of each list, in ms, 0 when not known.

-- Whatever stands under a queue's name, this must not fail.
local function number_of(command, ...)
  local answer = redis.pcall(command, ...)
  return type(answer) == 'number' and answer or 0
end

local function node_row(node)
  local size = redis.call('HSTRLEN', P .. 'nodes', node)
  local record = size <= ARGS.max_record and redis.call('HGET', P .. 'nodes', node) or ''
  local inc = redis.call('HGET', P .. 'incs', node)
  return { record, inc and number_of('HLEN', P .. 'claims:' .. inc) or 0 }
end

local function queue_row(queue)
  local lengths, oldest = {}, 0
  for i, step in ipairs(STEPS) do
    lengths[i] = number_of('LLEN', queue .. step)
    local submitted = lengths[i] > 0 and parse(redis.call('LINDEX', queue .. step, -1)).submitted or 0
    if submitted > 0 and (oldest == 0 or submitted < oldest) then oldest = submitted end
  end
  return { lengths, oldest }
end

local node_rows, queue_rows = {}, {}
for i, node in ipairs(ARGS.nodes) do node_rows[i] = node_row(node) end
for i, queue in ipairs(ARGS.queues) do queue_rows[i] = queue_row(queue) end
return reply('ok', now_ms(), node_rows, queue_rows)
