package catalog

import _ "embed"

// Starter is the verbs file of a new installation.
//
//go:embed starter/verbs.yaml
var Starter []byte
