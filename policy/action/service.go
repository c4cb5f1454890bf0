package action

// Service is a SaaS API as catalogues and configurations describe it.
type Service struct {
	Name    string `json:"service,omitempty" yaml:"service"`
	Source  string `json:"source,omitempty" yaml:"source"`   // package, version and digest that it was made from
	License string `json:"license,omitempty" yaml:"license"` // of the source
	// Like names another service whose description this one has, under hosts of its own.
	Like string `json:"like,omitempty" yaml:"like"`
	// Hosts are names. A leading *. stands for one or more labels, a * elsewhere for
	// one; {name}. leading is *. with the labels put in front of the path, as a bucket is.
	// A name that several services share has the beginning of their paths behind it:
	// www.googleapis.com/calendar.
	Hosts []string `json:"hosts,omitempty" yaml:"hosts"`
	// OwnHosts says that there are no hosts but those that an operator gives.
	OwnHosts bool `json:"own_hosts,omitempty" yaml:"own_hosts"`
	// GitHosts speak git's smart HTTP protocol at /{owner}/{repo}.git. A name may be among
	// Hosts too.
	GitHosts []string `json:"git_hosts,omitempty" yaml:"git_hosts"`
	// GitNested says that the owner of a repository may be several segments, groups in
	// groups.
	GitNested bool `json:"git_nested,omitempty" yaml:"git_nested"`
	// Bases are path prefixes under which the paths may stand; "" when absent.
	Bases []string `json:"bases,omitempty" yaml:"bases"`
	// Aliases are paths that stand for others with all that is below them:
	// "/repositories/{repository_id}" for "/repos/{owner}/{repo}".
	Aliases map[string]string `json:"aliases,omitempty" yaml:"aliases"`
	// Env are the variables in which clients look for the credential.
	Env []string `json:"env,omitempty" yaml:"env"`
	// Places are where the service takes credentials: bearer, basic, header:NAME, query:KEY.
	Places []string `json:"places,omitempty" yaml:"places"`
	// TokensOf names the services, or families of them (google-*), whose access tokens
	// this one hands out: it is an OAuth 2.0 token endpoint, and a handle for one of them
	// that a client's library trades here is answered by the proxy, with a handle. GitHub
	// hands out its own, to apps.
	TokensOf []string `json:"tokens_of,omitempty" yaml:"tokens_of"`
	// Handle is the prefix that makes a handle look like the vendor's token.
	Handle string `json:"handle,omitempty" yaml:"handle"`
	// Refusal names the shape in which the service's SDKs expect errors.
	Refusal string `json:"refusal,omitempty" yaml:"refusal"`
	// AllowForeign lets credentials pass that are no handles; AllowCookies lets cookies.
	AllowForeign bool `json:"allow_foreign,omitempty" yaml:"allow_foreign"`
	AllowCookies bool `json:"allow_cookies,omitempty" yaml:"allow_cookies"`
	// Cleartext lets a credential go out over plain http://, for services on a network
	// that is trusted. Without it a request that would is refused.
	Cleartext bool `json:"cleartext,omitempty" yaml:"cleartext"`
	// EncodedSlash admits %2F in path parameters.
	EncodedSlash bool `json:"encoded_slash,omitempty" yaml:"encoded_slash"`
	// Fold names parameters that the service compares without regard to case.
	Fold []string `json:"fold,omitempty" yaml:"fold"`
	// Resources say what an action is on, by the first rule whose parameters it has.
	Resources []ResourceRule `json:"resources,omitempty" yaml:"resources"`
	// Context names parameters that say where and not what, as a version: alone they
	// make no resource.
	Context []string `json:"context,omitempty" yaml:"context"`
	// Arguments are looked up in the query and in a form or JSON body, for services
	// that name the resource there.
	Arguments []string `json:"arguments,omitempty" yaml:"arguments"`
	// BodyCredential is the argument in which the service would take a credential.
	BodyCredential string `json:"body_credential,omitempty" yaml:"body_credential"`
	// GraphQL are the paths of GraphQL endpoints.
	GraphQL []string `json:"graphql,omitempty" yaml:"graphql"`
	// MCP are the paths of Model Context Protocol servers (streamable HTTP), JSONRPC
	// those of other JSON-RPC 2.0 endpoints.
	MCP     []string `json:"mcp,omitempty" yaml:"mcp"`
	JSONRPC []string `json:"jsonrpc,omitempty" yaml:"jsonrpc"`
	// Batches are the paths of endpoints that take several requests in one, with
	// their form: multipart (Google), odata (Microsoft Graph), composite, composite-batch or
	// composite-graph (Salesforce).
	Batches map[string]string `json:"batches,omitempty" yaml:"batches"`
	// Protocols are how requests name their operation where the path does not:
	// aws-json (X-Amz-Target), aws-query (Action=) and aws-cbor (Smithy RPC v2).
	Protocols []string `json:"protocols,omitempty" yaml:"protocols"`
	// Signing is the service's name in the credential scope of AWS signatures. A request
	// that is signed for another, or for another region than its host's, is refused.
	Signing string `json:"signing,omitempty" yaml:"signing"`
	// HMAC is the service's own way to sign requests: the settings of credentials of kind
	// hmac that are added without any. What is signed is made of these and of the request
	// as it was allowed; the agent has no other say in it.
	HMAC map[string]string `json:"hmac,omitempty" yaml:"hmac"`
	// HTTPSignature are the settings of credentials of kind http-signature (RFC 9421) that
	// leave the same out, as HMAC are those of its kind.
	HTTPSignature map[string]string `json:"http_signature,omitempty" yaml:"http_signature"`
	// Copies are operations that read something beside what they are on, each with the
	// operation that reads it and the path at which a GET does: "objects.get
	// /storage/v1/b/{sourceBucket}/o/{sourceObject}", of the request's parameters, {@FIELD} and
	// {?KEY}. Without that field or key nothing is copied.
	Copies map[string]string `json:"copies,omitempty" yaml:"copies"`
	// Also are operations that a request performs beside its own where it has a field
	// ("@x-amz-acl", or its beginning and *) or a key of the query ("?sudo"), perhaps of one
	// operation only ("PutObject @x-amz-acl"): "PutObjectAcl admin". Both must be allowed.
	Also map[string]string `json:"also,omitempty" yaml:"also"`
	// Query are the query keys that may stand beside those by which templates are
	// told apart ("/{Bucket}?acl"). A service that gives them takes no other.
	Query []string `json:"query,omitempty" yaml:"query"`
	// APIs are parts of the service under hosts of their own. Their operations begin
	// with the part's name: events.insert of the part calendar is calendar.events.insert.
	// A part says nothing about credentials; those are the service's.
	APIs map[string]*Service `json:"apis,omitempty" yaml:"apis"`
	// Ops are the operations that are named in a request by other than its path, by
	// that name: "DynamoDB_20120810.PutItem", "mutation.createIssue", "tools/call:search".
	Ops map[string]string `json:"ops,omitempty" yaml:"ops"`
	// Paths are templates ("/repos/{owner}/{repo}", "{path+}" for several segments)
	// with, for each method or *, the operation, its access level and marks:
	// "issues/create write".
	Paths map[string]map[string]string `json:"paths,omitempty" yaml:"paths"`

	whole func() (*Service, error)              // reads the operations of a service that was loaded without
	where func(api, path, method string) string // FILE:LINE of an operation, for one that was read from a file
}

// ResourceRule makes a resource of parameters.
type ResourceRule struct {
	Type string `json:"type" yaml:"type"`
	ID   string `json:"id" yaml:"id"` // "{owner}/{repo}"
}
