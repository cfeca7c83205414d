-- What every purge begins with: what is required. Stands behind `documents.lua`.
--
-- ARGV  the plan: whether anything is required (0 or 1), and if so the document and its state, as in `commit.lua`; then the script's own
--
-- Answers { 1 }                                         it does not hold
--         { 2, number, the number of the document or 0 }   a number lies in a hash that was not declared
--         { 0, the script's own answer }
local required
required, rest = take('>B', plan, rest)
if required > 0 then
  local d, is, value = next_document(), nil, nil
  is, value, rest = take('>BI6', plan, rest)
  local holds = meets(d, is, value)
  if holds == nil then
    return { 2, number, d.number }
  elseif not holds then
    return { 1 }
  end
end
