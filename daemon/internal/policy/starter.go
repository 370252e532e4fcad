package policy

import _ "embed"

// StarterGrants is the grants file of a new installation: it denies everything
// and shows how to allow.
//
//go:embed starter/grants.yaml
var StarterGrants []byte

// StarterRecipients is the recipients file of a new installation.
//
//go:embed starter/recipients.yaml
var StarterRecipients []byte
