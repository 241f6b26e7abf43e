package envelope

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
)

// LMTPMessageID returns the message id of a mail that came by LMTP: "lmtp-" and the hash of the MTA's queue id (or ""), the
// content's sha256 in hex, the sender, and the recipients in the order of their bytes. It is the same for every try at the same
// transaction, since an MTA that missed a reply sends the same again; the recipients are part of it because Postfix cuts one
// mail of many recipients into transactions of the same queue id and content. A retry that groups them otherwise gets new
// ids. Two mails with equal content and no queue id are told apart by the Received line that the MTA put in each.
// rcptTo is not changed.
func LMTPMessageID(queueID, sha256hex, mailFrom string, rcptTo []string) string {
	return "lmtp-" + hash(append([]string{queueID, sha256hex, mailFrom}, slices.Sorted(slices.Values(rcptTo))...))
}

// IMAPMessageID returns the message id of a mail that came by IMAP: "imap-" and the hash of account (the mailbox's configured
// id, else username@host), folder, UIDVALIDITY and UID, which name one mail for ever (RFC 9051 §2.3.1.1).
func IMAPMessageID(account, folder string, uidValidity, uid uint32) string {
	return "imap-" + hash([]string{account, folder, decimal(uidValidity), decimal(uid)})
}

// ReplayMessageID returns the message id of a mail of which nothing but its bytes is known, because it comes out of somebody's archive:
// "replay-" and the hash of the content's sha256 in hex. So the same mail out of two archives has one id.
func ReplayMessageID(sha256hex string) string {
	return "replay-" + hash([]string{sha256hex})
}

// MailID returns the id that all messages share which one mail was cut into: "mail-" and the hash of the MTA's queue id (or
// "") and the content's sha256 in hex.
func MailID(queueID, sha256hex string) string {
	return "mail-" + hash([]string{queueID, sha256hex})
}

// hash returns the SHA-256, in lower case hex, of the fields each written as its length in bytes, a colon and its bytes ("3:abc").
// The lengths keep fields apart that hold any bytes, and the result is short and printable whatever they hold. Consumers drop
// duplicates by it across versions of this program, so it never changes.
func hash(fields []string) string {
	var joined []byte
	for _, field := range fields {
		joined = strconv.AppendInt(joined, int64(len(field)), 10)
		joined = append(joined, ':')
		joined = append(joined, field...)
	}
	sum := sha256.Sum256(joined)
	return hex.EncodeToString(sum[:])
}

func decimal(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
