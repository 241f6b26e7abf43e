package envelope

// TableSize is what the tests compare with the real wire.
var TableSize = tableSize
