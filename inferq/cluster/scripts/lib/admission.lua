-- The admission rule: what a node has room for. routing/admission.py says the same in Python, and
-- a test compares them. `room` is what is left in this look:
-- {slots, blocks, tokens, prefills, longs, idle, chunked, block_size, reserved, total_blocks, long_from, longest,
--  hands_off}
-- What comes from a prefill node needs a slot and blocks here, and no prefill.

local room = ARGS.room

local function blocks_of(prompt)
  return math.min(math.ceil(prompt / room.block_size) + room.reserved, room.total_blocks)
end

local function fits(prompt, is_prefilled)
  if room.slots < 1 or blocks_of(prompt) > room.blocks then return false end
  if is_prefilled then return true end
  if not room.chunked then return room.idle or prompt <= room.tokens end
  return room.prefills > 0 and (room.longs > 0 or prompt <= room.long_from)
end

local function spend(prompt, is_prefilled)
  room.slots = room.slots - 1
  room.blocks = room.blocks - blocks_of(prompt)
  if is_prefilled then return end
  room.tokens = room.tokens - prompt
  room.prefills = room.prefills - 1
  if prompt > room.long_from then room.longs = room.longs - 1 end
  room.idle = false
end
