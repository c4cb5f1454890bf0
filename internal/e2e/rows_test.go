package e2e

import "slices"

// rows are all clients of the matrix.
func rows() []row {
	all := slices.Concat(commandRows(), pythonRows("Python 3.11", "$P"), pythonRows("Python 3.13", "$D/py-new/bin/python"))
	for _, v := range []string{"20", "22", "24"} {
		all = append(all, nodeRows(v)...)
	}
	return slices.Concat(all, goRows(), javaRows(), rustRows(), scriptRows(), storeRows(), cloudRows(), toolRows())
}

// plain are the calls of a client that asks what the environment says.
const plain = "read write events endless"

const curlScript = `case $CALL in
upload) head -c 2000000 /dev/zero >$W/big; exec curl -sS -H "Authorization: Bearer $TOKEN" -H 'Expect: 100-continue' --expect100-timeout 30 -T $W/big -X POST $URL;;
resume) curl -sS -H "Authorization: Bearer $TOKEN" -r 0-399999 -o $W/f $URL && curl -sS -H "Authorization: Bearer $TOKEN" -C - -o $W/f $URL && [ $(wc -c <$W/f) = 1048576 ] && echo resumed well; exit;;
esac
exec curl -sS -N -X $METHOD -H "Authorization: Bearer $TOKEN" ${BODY:+-d "$BODY"} $URL`

const wgetScript = `case $CALL in
resume) cd $W; curl -sS -H "Authorization: Bearer $TOKEN" -r 0-399999 -o file $URL; wget -q -c --header "Authorization: Bearer $TOKEN" $URL; [ $(wc -c <file) = 1048576 ] && echo resumed well; exit;;
esac
exec wget -nv -t 1 -O- --content-on-error --method $METHOD ${BODY:+--body-data "$BODY"} --header "Authorization: Bearer $TOKEN" $URL`

const gitSettings = `set -e; export GIT_TERMINAL_PROMPT=0 GIT_CONFIG_NOSYSTEM=1 HOME=$W
at=https://x:$GITHUB_TOKEN@github.com/acme
`

const gitScript = gitSettings + `case $CALL in
denied) exec git clone -q $at/other.git $W/other;;
read) exec git ls-remote $at/web.git;;
write) git clone -q $at/web.git $W/web; cd $W/web; git -c user.name=a -c user.email=a@example.com commit -q --allow-empty -m more; git push -q origin HEAD:refs/heads/topic-$$; echo pushed; exit;;
push) git clone -q $at/web.git $W/web; cd $W/web; head -c 3000000 /dev/urandom >big; git add big
  git -c user.name=a -c user.email=a@example.com commit -q -m big; git push -q origin HEAD:refs/heads/big-$$; git fetch -q; echo pushed 3 MB;;
esac`

const ghScript = `export HOME=$W GH_TOKEN=$GITHUB_TOKEN
case $CALL in
denied) exec gh api -X DELETE repos/acme/web;;
read) exec gh api repos/acme/web/issues;;
write) exec gh api repos/acme/web/issues -f title='written down';;
esac`

func commandRows() []row {
	const family = "Command line"
	return []row{
		{name: "curl", family: family, version: "curl --version | head -1", install: "apt install curl", run: curlScript, quick: true, calls: plain + " upload resume"},
		{name: "pycurl", family: family, version: "/usr/bin/python3 -c 'import pycurl; print(pycurl.version)'", install: "apt install python3-pycurl", run: "exec /usr/bin/python3 $D/pycurl_plain.py", calls: plain,
			known: "libcurl on GnuTLS, which takes its CA from no variable: set CAINFO to `$SSL_CERT_FILE`"},
		{name: "wget", family: family, version: "wget --version | head -1", install: "apt install wget", run: wgetScript, quick: true, calls: plain + " resume"},
		{name: "git", family: family, version: "git --version", install: "apt install git", run: gitScript, quick: true, calls: "read write push",
			says: map[string]string{"read": "refs/heads/main", "write": "pushed", "push": "pushed 3 MB"}, reason: "remote: Agent triage-bot has no grant for github:git/fetch on acme/other",
			known: "shows why it may not see a repository, or not push to it at all; of a push that is refused for one of its refs the status alone: see `chaperone log query --result deny`"},
		{name: "gh", family: family, version: "gh --version | head -1", install: "apt install gh", run: ghScript, quick: true, calls: "read write"},
	}
}

// spoken is what the SDKs of models show.
var spoken = map[string]string{"read": "small", "write": "hello from the model", "events": "model", "endless": "tick"}

// pythonRows are the clients of one Python. The quick ones are those that Debian has.
func pythonRows(family, python string) []row {
	library := func(name, item string) row {
		r := row{name: name, family: family, install: "pip install " + item, quick: python == "$P" && (item == "requests" || item == "httpx"),
			version: python + ` -c "import importlib.metadata as m; print(m.version('` + item + `'))"`}
		return r
	}
	simple := func(name, item, known string) row {
		r := library(name, item)
		r.run, r.calls, r.known = "exec "+python+" $D/plain.py "+name, plain, known
		return r
	}
	sdk := func(name, item, calls, reason, known string, says map[string]string) row {
		r := library(item, item)
		r.run, r.calls, r.reason, r.says, r.known = "exec "+python+" $D/sdk.py "+name+" $CALL", calls, reason, says, known
		return r
	}
	standard := simple("urllib", "", "")
	standard.install, standard.version, standard.quick = "part of Python", python+" --version", python == "$P"
	return []row{
		standard, simple("requests", "requests", ""), simple("httpx", "httpx", ""), simple("aiohttp", "aiohttp", "ignores proxy variables unless told `trust_env=True`; `run` tells it"),
		sdk("websockets", "websockets", "read socket endless", "no grant for shapes:hang", "", map[string]string{"read": "said over a socket", "socket": "said over a socket", "endless": "tick"}),
		sdk("grpcio", "grpcio", "read events endless", "no grant for echo:drop", "", map[string]string{"read": "said over gRPC", "events": "said over gRPC", "endless": "tick"}),
		sdk("openai", "openai", plain, "no grant for openai:models.delete", "", spoken),
		sdk("anthropic", "anthropic", plain, "no grant for anthropic:models.retrieve", "", spoken),
		sdk("slack", "slack_sdk", "read write", "no grant for slack:chat.delete", "", map[string]string{"read": "acme", "write": "1700000000.000100"}),
		sdk("pygithub", "PyGithub", "read write", "", "", map[string]string{"read": "first", "write": "made by pygithub"}),
		sdk("google", "google-api-python-client", "read write", "no grant for google-drive:files.delete", "goes past the proxy where `pysocks` is not installed; `run` leads it through", map[string]string{"read": "plan", "write": "draft"}),
		sdk("stripe", "stripe", "read write", "no grant for stripe:customers/delete", "brings roots of its own; `run` gives it the bundle", map[string]string{"read": "424242", "write": "cus_1"}),
	}
}

// nodeRows are the clients of one Node. The quick ones run on the newest, with what
// package.json here names.
func nodeRows(v string) []row {
	family, node := "Node "+v, "$D/node_modules/node"+v+"/bin/node"
	if v == "24" {
		node = "$N"
	}
	library := func(name, item string) row {
		quick := v == "24" && slices.Contains([]string{"", "@octokit/rest", "@slack/web-api", "openai", "stripe"}, item)
		return row{name: name, family: family, install: "npm install " + item, quick: quick,
			version: node + ` -p 'JSON.parse(require("fs").readFileSync(process.argv[1])).version' $M/` + item + "/package.json"}
	}
	simple := func(name, item, known string) row {
		r := library(name, item)
		r.run, r.calls, r.known = "exec "+node+" $D/plain.mjs "+name, plain, known
		if item == "" {
			r.install, r.version = "part of Node", node+" --version"
		}
		return r
	}
	sdk := func(name, item, calls, reason, known string, says map[string]string) row {
		r := library(item, item)
		r.run, r.calls, r.reason, r.says, r.known = "exec "+node+" $D/sdk.mjs "+name+" $CALL", calls, reason, says, known
		return r
	}
	past := "opens its own connections past the proxy; `run` leads them through it"
	out := []row{
		simple("fetch", "", ""), simple("https", "", ""), simple("axios", "axios", ""), simple("undici", "undici", past),
		sdk("octokit", "@octokit/rest", "read write", "", "", map[string]string{"read": "first", "write": "made by octokit"}),
		sdk("slack", "@slack/web-api", "read write", "no grant for slack:chat.delete", "", map[string]string{"read": "acme", "write": "1700000000.000100"}),
		sdk("openai", "openai", plain, "no grant for openai:models.delete", "", spoken),
		sdk("anthropic", "@anthropic-ai/sdk", plain, "no grant for anthropic:models.retrieve", "", spoken),
		sdk("stripe", "stripe", "read write", "no grant for stripe:customers/delete", past, map[string]string{"read": "424242", "write": "cus_1"}),
		sdk("mcp", "@modelcontextprotocol/sdk", "read write", "no grant for mcp:wipe", "", map[string]string{"read": "look", "write": "looked"}),
		sdk("grpc", "@grpc/grpc-js", "read events endless", "no grant for echo:drop", "", map[string]string{"read": "said over gRPC", "events": "said over gRPC", "endless": "said over gRPC"}),
		sdk("ws", "ws", "read socket endless", "no grant for shapes:hang", past, map[string]string{"read": "said over a socket", "socket": "said over a socket", "endless": "tick"}),
	}
	if v == "24" {
		out = append(out, simple("got", "got", past))
	}
	return out
}

func goRows() []row {
	const family = "Go"
	return []row{
		{name: "net/http", family: family, version: "go version", install: "part of Go", run: "exec go-http", quick: true, calls: plain},
		{name: "grpc-go", family: family, version: "cd ../.. && go list -m google.golang.org/grpc", install: "go get google.golang.org/grpc", run: "exec go-grpc", quick: true,
			calls: "read events endless", says: map[string]string{"read": "said over gRPC", "events": "said over gRPC", "endless": "tick"}, reason: "no grant for echo:drop"},
	}
}

func javaRows() []row {
	const family, door = "Java 17", "sends no proxy password; `run` gives it a local listener that does"
	return []row{
		{name: "HttpClient", family: family, version: "java -version 2>&1 | head -1", install: "part of Java", run: "exec java $D/java/Clients.java httpclient", quick: true, calls: plain, door: true, known: door},
		{name: "HttpURLConnection", family: family, version: "java -version 2>&1 | head -1", install: "part of Java", run: "exec java $D/java/Clients.java urlconnection", quick: true, calls: plain, door: true, known: door},
		{name: "OkHttp", family: family, version: "basename $(ls $D/java/lib/okhttp-jvm-*.jar) .jar", install: "com.squareup.okhttp3:okhttp", run: `exec java -cp "$D/java:$D/java/lib/*" Ok`, calls: plain, door: true, known: door},
	}
}

func rustRows() []row {
	const family = "Rust"
	return []row{
		{name: "reqwest", family: family, version: `grep -A1 '"reqwest"' $D/rust/Cargo.lock | tail -1`, install: "cargo add reqwest", run: "exec $D/rust/target/release/plain reqwest", calls: plain},
		{name: "ureq", family: family, version: `grep -A1 '"ureq"' $D/rust/Cargo.lock | tail -1`, install: "cargo add ureq --features platform-verifier", run: "exec $D/rust/target/release/plain ureq", calls: plain,
			known: "brings roots of its own unless built with `RootCerts::PlatformVerifier`"},
	}
}

func scriptRows() []row {
	return []row{
		{name: "Ruby net/http", family: "Ruby, PHP", version: "ruby --version", install: "apt install ruby", run: "exec ruby $D/plain.rb", calls: plain, quick: true},
		{name: "PHP curl", family: "Ruby, PHP", version: "php --version | head -1", install: "apt install php-cli php-curl", run: "exec php $D/plain.php", calls: plain, quick: true},
	}
}
