// Package report is the signed record of one session, as both ends read it
// (wire/README.md §15.2): what a daemon gives out of its log, what a recipient
// keeps of each call, and how the one is held against the other.
//
// It opens no file and knows no log. The daemon makes reports, the client keeps
// receipts and checks; neither believes the other's text where there is a
// signature to look at.
package report
