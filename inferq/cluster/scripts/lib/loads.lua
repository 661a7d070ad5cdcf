-- The tables of loads, one for each phase. They hold the nodes whose own queue is not empty: those
-- that may be stolen from.

local MOST_SHARDS = 1024

local function shards()
  return tonumber(redis.call('GET', P .. 'shards') or 1)
end

local function set_shards(count)
  redis.call('SET', P .. 'shards', math.max(1, math.min(count, MOST_SHARDS)))
end

-- CRC16 (XMODEM) of the node's name picks its shard.
local function crc16(text)
  local crc = 0
  for i = 1, #text do
    crc = bit.bxor(crc, bit.lshift(string.byte(text, i), 8))
    for _ = 1, 8 do
      crc = bit.lshift(crc, 1)
      if bit.band(crc, 0x10000) ~= 0 then crc = bit.bxor(crc, 0x1021) end
      crc = bit.band(crc, 0xffff)
    end
  end
  return crc
end

local function load_table(base, shard)
  return P .. 'load:' .. base .. ':' .. shard
end

local function load_key(base, node)
  local count = shards()
  return load_table(base, count > 1 and crc16(node) % count or 0)
end

local function has_loads(base)
  local keys = {}
  for shard = 0, shards() - 1 do keys[#keys + 1] = load_table(base, shard) end
  return redis.call('EXISTS', unpack(keys)) > 0
end

local function noted_load(base, node)
  return tonumber(redis.call('ZSCORE', load_key(base, node), node) or 0)
end

-- What a node has to do: read from its queue and its claims, never counted separately. The row in
-- the table follows. Returns how many messages wait, and the load.
local function note_load(base, node)
  local queued = waiting_in(base .. '.' .. node)
  local inc = incarnation(node)
  local load = queued + (inc and redis.call('HLEN', P .. 'claims:' .. inc) or 0)
  if queued > 0 then
    redis.call('ZADD', load_key(base, node), load, node)
  else
    redis.call('ZREM', load_key(base, node), node)
  end
  return queued, load
end
