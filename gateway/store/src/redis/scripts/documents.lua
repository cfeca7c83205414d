-- Functions to read and check the documents of a plan. Included after `head.lua`.
local LISTED, NUMBERED = 1, 2
local ABSENT, PRESENT, VERSION = 0, 1, 2

-- Reads the next document of the plan. Its `raw` is false if it is absent or in a hash that is not declared.
local function next_document()
  -- `index` refers to the sorted set of keys of a listed table, or to the hash `bucket` of a numbered one.
  local order, key, hash, index, bucket, changes
  order, key, hash, index, bucket, changes, rest = take('>BI2c0I2I2I6I2', plan, rest)
  local found = head and call('HGET', KEYS[hash], key)
  local number, raw = 0, found
  if order == NUMBERED and found then
    number = tonumber(found)
    raw = index > 0 and bucket == floor(number / BUCKET) and call('HGET', KEYS[index], found)
  end
  return {
    order = order, key = key, hash = hash, index = index, bucket = bucket, changes = changes,
    exists = found, number = number, raw = raw, is = false, dirty = false, changed = false, counts = false, after = false, removed = false,
  }
end

-- Decodes a document: 6 integers, length of the key, length of the counters, key, counters, value.
local function open(d)
  local is = d.is
  if not is then
    local version, number, seq, created, edited, deleted, key_length, counts_length = take('>I6I6I6I6I6I6I2I4', d.raw)
    local value_at = 43 + key_length + counts_length
    is = {
      version = version, number = number, seq = seq, created = created, edited = edited, deleted = deleted,
      packed = d.raw:sub(43 + key_length, value_at - 1), value = d.raw:sub(value_at),
    }
    d.is = is
  end
  return is
end

-- Returns whether a document has the required state; nil if it is in a hash that is not declared.
local function meets(d, is, value)
  if is == ABSENT then
    return not d.exists
  elseif is == PRESENT or not d.exists then
    return d.exists
  elseif not d.raw then
    return nil
  elseif is == VERSION then
    return open(d).version == value
  end
  return open(d).seq == value
end
