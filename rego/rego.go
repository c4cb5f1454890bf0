// Package rego embeds the policy that ships with the proxy, and the schemas of
// policy input and answer.
package rego

import "embed"

// FS holds the policy folder: chaperone/ with its data and tests, and schema/.
//
//go:embed chaperone schema
var FS embed.FS

// InputSchema is the JSON schema of policy input.
//
//go:embed schema/input.json
var InputSchema []byte
