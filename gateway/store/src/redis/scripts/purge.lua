-- The first part of every purge: checks the precondition. Included after `documents.lua`.
--
-- ARGV  the plan: 1 if there is a precondition, then its document and state, as in `commit.lua`; then the script's own arguments
--
-- Returns { 1 }                                      conflict
--         { 2, number, number of the document or 0 } the hash of the document is not declared
--         { 0, the script's own reply }
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
