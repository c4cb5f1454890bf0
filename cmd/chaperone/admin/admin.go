// Package admin is how the program's verbs speak with a running proxy: HTTP and
// JSON over a socket that only its owner can open.
package admin

import (
	"time"

	"chaperone/credential"
	"chaperone/proxy/identity"
	"chaperone/store/replica"
)

// AgentSpec registers an agent.
type AgentSpec struct {
	Name   string            `json:"name"`
	Owner  string            `json:"owner"`
	Labels map[string]string `json:"labels,omitzero"`
}

// Change goes with a change of state: why, and who asked for it.
type Change struct {
	Reason string `json:"reason,omitzero"`
	By     string `json:"by,omitzero"`
}

// Retired is what retiring an agent left to do, as sentences.
type Retired struct {
	Agent   string   `json:"agent"`
	Residue []string `json:"residue"`

	Replicas    []replica.Ack `json:"replicas"`
	Unconfirmed string        `json:"unconfirmed,omitzero"`
}

// CredentialSpec adds a credential. The secret travels over the socket only.
type CredentialSpec struct {
	credential.Credential
	Secret []byte `json:"secret,omitzero"`
}

// Material is what a credential gets in the place of what it had: a secret, or a
// source of it.
type Material struct {
	Source string `json:"source,omitzero"`
	Secret []byte `json:"secret,omitzero"`
}

// Credential is one credential, with why it could not be used when that was last tried.
type Credential struct {
	credential.Credential
	Trouble *credential.Trouble `json:"trouble,omitzero"`
}

// Handle is what is told of a handle: everything but the handle.
type Handle struct {
	ID         string    `json:"id"`
	Credential string    `json:"credential"`
	Service    string    `json:"service"`
	Expires    time.Time `json:"expires"`
	Uses       int64     `json:"uses"` // since the proxy started
	Limit      int64     `json:"limit,omitzero"`
	Revoked    bool      `json:"revoked,omitzero"`
}

// Shown is a session with its handles.
type Shown struct {
	identity.Session
	Handles []Handle `json:"handles,omitzero"`
}

// Session is a new session with what is told once.
type Session struct {
	identity.Session
	Token   string            `json:"token"`
	Handles map[string]string `json:"handles"`

	ProxyURL  string              `json:"proxy_url"` // with agent and token in it
	Trust     string              `json:"trust"`     // directory of ca.pem, bundle.pem, truststore.p12
	Variables map[string][]string `json:"variables"` // credential -> where its clients look for it
	// StandIns are variables by credential, for those of which the handle is but a part.
	StandIns map[string]map[string]string `json:"stand_ins,omitzero"`
	// Files are the texts of files in which SDKs look for a credential, by credential and
	// the variable that names the file.
	Files map[string]map[string]string `json:"files,omitzero"`
}

// Revocation says what to revoke and why.
type Revocation struct {
	identity.Target
	Change
}

// Status is the state of the proxy.
type Status struct {
	Ready    bool      `json:"ready"`
	Listen   string    `json:"listen"`
	Started  time.Time `json:"started"`
	Policy   string    `json:"policy"` // revision in force
	Services int       `json:"services"`
	// Reload is the error of the last reload, empty when it took effect.
	Reload string `json:"reload,omitzero"`
	// Log is why the decision log cannot be written, empty when it can.
	Log string `json:"log,omitzero"`
	// Troubles are why credentials could not be used when that was last tried, by id.
	Troubles map[string]*credential.Trouble `json:"troubles,omitzero"`
	// Trust is the directory of the files by which clients trust the CA.
	Trust string `json:"trust"`
}
