-- Enqueue requests, all or none. Sending again what was sent with the same token does nothing, so
-- that a producer may repeat a call whose reply it did not get.
-- ARGS: base, node (or ''), origin, token, items, max_waiting, min_load.
-- items: {{raw, id, step, ttl_ms}, ...}; step: index of the priority's list, from 1.
-- Returns {'ok', accepted} or {'duplicate', {id, ...}}; accepted may be less than all: queue full.
local mine = ARGS.origin .. '\n' .. ARGS.token .. '\n'
local keys, fresh, duplicates = {}, {}, {}
for i, item in ipairs(ARGS.items) do keys[i] = P .. 'req:' .. item[2] end
local known = redis.call('MGET', unpack(keys))
for i, item in ipairs(ARGS.items) do
  if not known[i] then
    fresh[#fresh + 1] = item
  elseif string.sub(known[i], 1, #mine) ~= mine then
    duplicates[#duplicates + 1] = item[2]
  end
end
if #duplicates > 0 then return reply('duplicate', duplicates) end

local node_inc = ARGS.node ~= '' and incarnation(ARGS.node)
local own = node_inc and redis.call('HGET', P .. 'states', ARGS.node) == 'ready'
local base = own and ARGS.base .. '.' .. ARGS.node or ARGS.base
local waiting = waiting_in(base)
local room = math.max(0, ARGS.max_waiting - waiting)
local accepted = #ARGS.items - #fresh + math.min(#fresh, room)

-- Idle nodes block on the first list only: while all lists are empty, priorities do not matter,
-- so as many messages as nodes may be waiting go there, whatever their priority.
local direct = 0
if not own and waiting == 0 then direct = redis.call('SCARD', P .. 'parked') end
local lists = {}
for i = 1, math.min(#fresh, room) do
  local item = fresh[i]
  redis.call('SET', P .. 'req:' .. item[2], mine .. 'q\n', 'PX', item[4])
  local step = i <= direct and 1 or item[3]
  lists[step] = lists[step] or {}
  table.insert(lists[step], item[1])
end
for step, raws in pairs(lists) do call_in_parts('LPUSH', base .. STEPS[step], raws) end

if #fresh > 0 and room > 0 then
  if own then
    local queued, load = load_of(ARGS.base, ARGS.node)
    note_load(ARGS.node, queued, load)
    if redis.call('SREM', P .. 'parked', node_inc) == 1 or waiting == 0 then ring(node_inc, '["look"]') end
    if load > ARGS.min_load then ring_parked() end
  elseif waiting > 0 then
    -- Who is parked although something waits has room, but not for that.
    ring_parked()
  end
end
return reply('ok', accepted)
