package envelope

// TableSize is what the tests compare with the real wire.
var TableSize = tableSize

// WayFields is what the tests compare with docs/contract.md.
var WayFields = wayFields
