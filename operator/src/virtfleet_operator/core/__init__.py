"""Pure decisions of the operator: validate, place, compile, summarise. No I/O, no clock."""
