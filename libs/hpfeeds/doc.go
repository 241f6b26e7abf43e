// Package hpfeeds speaks the hpfeeds wire protocol: it publishes to the channels of a broker and subscribes to them. The protocol has
// no acknowledgement of anything, so what can be known of the fate of a message is what Conn offers: what the kernel still holds
// (Unsent), whatever goes wrong later (Done), and messages that come back over another connection (Subscribe).
//
// # Protocol
//
// There is no standard; the reference is the broker in Python (github.com/hpfeeds/hpfeeds), and others deviate. A frame is
//
//	uint32  length of all of it, these four bytes included, big endian
//	uint8   opcode
//	…       body
//
//	0 ERROR        text
//	1 INFO         uint8 length, name of the broker; the rest is a nonce
//	2 AUTH         uint8 length, ident; the rest is SHA1(nonce ‖ secret)
//	3 PUBLISH      uint8 length, ident; uint8 length, channel; the rest is the payload
//	4 SUBSCRIBE    uint8 length, ident; the rest is the channel
//	5 UNSUBSCRIBE  uint8 length, ident; the rest is the channel
//
// The broker speaks first, with INFO; the client answers with AUTH and may go on at once. A good AUTH has no reply. Brokers differ in what
// a bad one, or a channel without the right to it, brings:
//
//   - Python: ERROR, and the connection is closed. A frame that is too large closes it without a word. The nonce has 4 bytes.
//   - tentacool: ERROR "accessfail", closed at the next frame. It does not send a message back to the connection that it came from, and
//     refuses empty payloads; a frame may have 10 MiB and 5 bytes.
//   - HPFBroker: ERROR, the message is dropped and the connection stays open; it refuses empty payloads and knows no limit.
//
// So an ERROR frame, whatever it says, ends a Conn.
package hpfeeds
