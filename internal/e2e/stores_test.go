package e2e

const pipScript = `export HOME=$W; I=simple; [ $CALL != denied ] || I=secret/simple
exec $D/py/bin/pip download -q --retries 0 --no-cache-dir --isolated -d $W --index-url https://x:$DEPOT_TOKEN@depot.example.com/$I/ -v tiny`

const npmScript = `export HOME=$W; cd $W; I=npm; [ $CALL != denied ] || I=secret/npm
printf '//npm.example.com/:_authToken=%s\n//npm.example.com/npm/:_authToken=%s\n' $NPM_TOKEN $NPM_TOKEN >.npmrc
if [ $CALL = write ]; then mkdir p; cd p; cp ../.npmrc .; echo '{"name":"mine","version":"1.0.0"}' >package.json
  exec npm publish --registry https://npm.example.com/npm/ --fetch-retries 0; fi
npm install --registry https://npm.example.com/$I/ --fetch-retries 0 --no-audit --no-fund tiny && echo got $(ls node_modules)`

const cargoScript = `export CARGO_HOME=$W/cargo; mkdir -p $W/c/src; cd $W/c; I=index; [ $CALL != denied ] || I=secret/index
export CARGO_REGISTRIES_DEPOT_INDEX=sparse+https://crates.example.com/$I/ CARGO_REGISTRIES_DEPOT_TOKEN="Bearer $CRATES_TOKEN" CARGO_NET_RETRY=0 CARGO_REGISTRY_GLOBAL_CREDENTIAL_PROVIDERS=cargo:token
echo >src/lib.rs
printf '[package]\nname = "mine"\nversion = "1.0.0"\ndescription = "x"\nlicense = "MIT"\nedition = "2021"\n' >Cargo.toml
if [ $CALL = push ]; then exec timeout 5 cargo publish --registry depot --allow-dirty --no-verify 2>&1; fi
printf '[dependencies]\ntiny = { version = "1", registry = "depot" }\n' >>Cargo.toml
cargo fetch 2>&1`

const goScript = `export HOME=$W GOPATH=$W/go GOFLAGS=-modcacherw GONOSUMDB='*' GONOSUMCHECK=1 GOFLAGS=-mod=mod GOTOOLCHAIN=local; cd $W; I=go; [ $CALL != denied ] || I=secret/go
export GOPROXY=https://x:$DEPOT_TOKEN@depot.example.com/$I
go mod init mine 2>/dev/null; go mod download -modcacherw -json example.com/tiny@v1.0.0`

const mavenScript = `export HOME=$W; I=maven; [ $CALL != denied ] || I=secret/maven
cat >$W/settings.xml <<END
<settings><servers><server><id>depot</id><username>x</username><password>$DEPOT_TOKEN</password></server></servers></settings>
END
cp -R $D/maven $W/repository
exec mvn -B -s $W/settings.xml -llr -Dmaven.repo.local=$W/repository dependency:get -Dtransitive=false -Dartifact=com.example:tiny:1.0 -DremoteRepositories=depot::default::https://depot.example.com/$I`

const skopeoScript = `export HOME=$W; cd $W
to=docker://oci.example.com/acme/tiny-$$:1
login="--dest-creds x:$OCI_TOKEN"
case $CALL in
denied) exec skopeo inspect --raw --creds x:$OCI_TOKEN docker://oci.example.com/secret/tiny:1;;
read) sh $D/image.sh image && skopeo copy -q --insecure-policy $login oci:image:1 docker://oci.example.com/acme/tiny:1 && skopeo inspect --raw --creds x:$OCI_TOKEN docker://oci.example.com/acme/tiny:1;;
*) sh $D/image.sh image && skopeo copy -q --insecure-policy $login oci:image:1 $to && skopeo copy -q --insecure-policy --src-creds x:$OCI_TOKEN $to oci:back:1 && echo pushed and pulled;;
esac`

// storeRows are package managers and registries. Nothing that they fetch may come
// from a cache.
func storeRows() []row {
	const family = "Package managers"
	const blind = "shows the status of a refusal and not its text: see `chaperone log query --result deny`"
	return []row{
		{name: "pip", family: family, version: "$D/py/bin/pip --version", install: "part of Python", run: pipScript, calls: "read", blind: true, reason: "No matching distribution", known: "takes a refusal for a package that is not there: see `chaperone log query --result deny`",
			says: map[string]string{"read": "tiny-1.0-py3-none-any.whl"}},
		{name: "npm", family: family, version: "npm --version", install: "part of Node", run: npmScript, calls: "read write", reason: "no grant for npm:hide",
			says: map[string]string{"read": "got tiny", "write": "+ mine@1.0.0"}},
		{name: "cargo", family: family, version: "cargo --version", install: "part of Rust", run: cargoScript, calls: "read push", reason: "no grant for crates:hide",
			says: map[string]string{"read": "Downloaded tiny v1.0.0", "push": "Uploaded mine v1.0.0"}, known: "wants the scheme in its token: `CARGO_REGISTRIES_NAME_TOKEN=\"Bearer $HANDLE\"`"},
		{name: "go", family: family, version: "go version", install: "part of Go", run: goScript, calls: "read", blind: true, reason: "403 Forbidden", known: blind,
			says: map[string]string{"read": `"Sum": "h1:`}},
		{name: "Maven", family: family, version: "mvn -v | head -1", install: "apt install maven", run: mavenScript, calls: "read", blind: true, door: true, reason: "403", known: blind + "; the proxy password comes from the local listener",
			says: map[string]string{"read": "BUILD SUCCESS"}},
		{name: "skopeo", family: family, version: "skopeo --version && which docker-registry", install: "apt install skopeo", run: skopeoScript, calls: "read push", blind: true, reason: "no grant for oci:hide",
			says: map[string]string{"read": "schemaVersion", "push": "pushed and pulled"}, known: "shows of a service that is down the status alone"},
	}
}

const kubectlScript = `export HOME=$W; k="kubectl --server https://kube.example.com --token $KUBE_TOKEN"; p=/api/v1/namespaces/acme/pods
case $CALL in
denied) exec $k delete --raw $p/web-1;;
endless) exec $k get --raw $p/web-1/log;;
write) echo '{"kind":"Pod","apiVersion":"v1","metadata":{"name":"made"}}' >$W/pod.json; exec $k create --raw $p -f $W/pod.json;;
*) exec $k get --raw $p;;
esac`

const chromiumScript = `export HOME=$W; key=$(openssl x509 -in $NODE_EXTRA_CA_CERTS -noout -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64)
[ $CALL != denied ] || URL=https://shapes.example.com/hang
[ $CALL != read ] || URL=https://shapes.example.com/sse
exec timeout 40 chromium --headless --no-sandbox --disable-gpu --disable-background-networking --user-data-dir=$W/profile \
  --proxy-server=$CHAPERONE_LOCAL_PROXY --ignore-certificate-errors-spki-list=$key --dump-dom $URL 2>/dev/null`

// amazon has AWS's clients try once, and look for no other keys.
const amazon = "export HOME=$W AWS_DEFAULT_REGION=eu-west-1 AWS_MAX_ATTEMPTS=1 AWS_EC2_METADATA_DISABLED=true\n"

const awsScript = amazon + `case $CALL in
denied) $D/py/bin/aws s3api delete-object --bucket acme --key plan;;
read) $D/py/bin/aws s3 ls;;
write) echo a plan >$W/plan; $D/py/bin/aws s3api put-object --bucket acme --key plan --body $W/plan;;
upload) head -c 2000000 /dev/zero | $D/py/bin/aws s3 cp - s3://acme/big && echo uploaded;;
endless) exec $D/py/bin/aws s3api get-object --bucket acme --key endless /dev/stdout;;
esac`

func cloudRows() []row {
	const family = "Clouds and browsers"
	const handles = "signs with the handle's secret key; the service sees a signature of the true one"
	objects := map[string]string{"read": "acme", "write": "size-", "upload": "uploaded", "endless": "tick"}
	return []row{
		{name: "AWS CLI", family: family, version: "$D/py/bin/aws --version", install: "pip install awscli", run: awsScript, calls: "read write upload endless", reason: "no grant for aws-s3:DeleteObject", says: objects, known: handles},
		{name: "boto3", family: family, version: `$D/py/bin/python -c "import boto3; print(boto3.__version__)"`, install: "pip install boto3", run: amazon + "exec $D/py/bin/python $D/sdk.py boto3 $CALL", calls: "read write upload endless",
			reason: "no grant for aws-s3:DeleteObject", says: objects, known: handles},
		{name: "kubectl", family: family, version: "kubectl version --client | head -1", install: "apt install kubernetes-client", run: kubectlScript, calls: "read write endless", reason: "no grant for kube:delete",
			says: map[string]string{"read": "web-1", "write": `"name":"made"`, "endless": "tick"}},
		{name: "Chromium", family: family, version: "chromium --version 2>/dev/null", install: "apt install chromium", run: chromiumScript, calls: "read", alone: true, door: true, reason: "no grant for shapes:hang",
			says: map[string]string{"read": "data: 2"}, known: "sends no proxy password and reads no CA from a variable: start it with `--proxy-server=$CHAPERONE_LOCAL_PROXY`, and with `--ignore-certificate-errors-spki-list=` and the hash of the CA's key, or import the CA into its NSS database"},
	}
}
