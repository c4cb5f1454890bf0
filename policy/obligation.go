package policy

// Obligations are the names under which an answer may oblige the proxy to do something
// along with an allow. An answer that obliges to anything else is a deny.
var Obligations = [...]string{"limits", "headers", "body", "attribution", "report"}
