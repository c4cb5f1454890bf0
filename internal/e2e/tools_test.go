package e2e

const lfsScript = gitSettings + `git lfs install --skip-repo >/dev/null; big() { git lfs track '*.bin' >/dev/null; head -c $1 /dev/urandom >plan.bin; git add .; git -c user.name=a -c user.email=a@example.com commit -q -m big; git push -q origin HEAD:refs/heads/$2-$$; }
case $CALL in
denied) git clone -q $at/web.git $W/web; cd $W/web; git config lfs.url $at/other.git/info/lfs; big 100 refused;;
read) git clone -q $at/web.git $W/web; cd $W/web; git config lfs.url $at/web.git/info/lfs; printf 'version https://git-lfs.github.com/spec/v1\noid sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae\nsize 3\n' | git lfs smudge;;
*) git clone -q $at/web.git $W/web; cd $W/web; big 2000000 large; git clone -q -b large-$$ $at/web.git $W/back; cmp plan.bin $W/back/plan.bin && echo pushed and fetched;;
esac`

const gsutilScript = `export HOME=$W; g="$D/google/bin/gsutil -q -o GSUtil:state_dir=$W -o GSUtil:check_hashes=never -o Boto:num_retries=0 -o Credentials:gs_oauth2_refresh_token=$STORAGE_TOKEN -o OAuth2:client_secret=$STORAGE_TOKEN -o GSUtil:parallel_process_count=1 -o GSUtil:parallel_thread_count=1"
case $CALL in
denied) exec $g rm gs://acme/plan;;
read) exec $g ls gs://acme;;
write) echo a plan >$W/f; $g cp $W/f gs://acme/made && echo put;;
upload) head -c 9000000 /dev/zero >$W/f; $g cp $W/f gs://acme/big && echo uploaded;;
esac`

// dockerScript has a daemon of its own, which makes the requests; it needs root.
const dockerScript = `export HOME=$W DOCKER_CONFIG=$W/client DOCKER_HOST=unix://$W/d; mkdir -p $W/client $W/empty
printf '{"auths":{"oci.example.com":{"auth":"%s"}}}' $(printf x:$OCI_TOKEN | base64 -w0) >$W/client/config.json
dockerd --data-root $W/data --exec-root $W/exec -p $W/pid -H $DOCKER_HOST --iptables=false --ip6tables=false --bridge=none --storage-driver=vfs >$W/log 2>&1 & daemon=$!
trap 'kill $daemon; wait $daemon' EXIT
n=0; until docker version >/dev/null 2>&1; do n=$((n+1)); [ $n -lt 150 ] || exit 9; sleep .2; done
put() { (cd $W && sh $D/image.sh image && skopeo copy -q --insecure-policy oci:image:1 docker-archive:$W/image.tar:$1) && docker load -q -i $W/image.tar && docker push -q $1; }
case $CALL in
denied) docker pull oci.example.com/secret/tiny:1;;
read) docker login -u x -p $OCI_TOKEN oci.example.com 2>&1;;
*) put oci.example.com/acme/docker-$$:1 && docker rmi oci.example.com/acme/docker-$$:1 >/dev/null && docker pull -q oci.example.com/acme/docker-$$:1 && echo pushed and pulled;;
esac`

const dotnetScript = `export DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1 DOTNET_CLI_TELEMETRY_OPTOUT=1 LD_LIBRARY_PATH=$D/dotnet/openssl/psycopg2_binary.libs
exec $D/dotnet/core/dotnet $D/dotnet/Plain.dll`

// nssScript has the CA in the browser's own database, and ends it once the page is
// there.
const nssScript = `export HOME=$W; mkdir -p $W/.pki/nssdb; certutil -d sql:$W/.pki/nssdb -N --empty-password && certutil -d sql:$W/.pki/nssdb -A -t C,, -n chaperone -i $NODE_EXTRA_CA_CERTS || exit 9
[ $CALL != denied ] || URL=https://shapes.example.com/hang
[ $CALL != read ] || URL=https://shapes.example.com/sse
exec timeout 40 chromium --headless --no-sandbox --disable-gpu --disable-background-networking --user-data-dir=$W/profile \
  --proxy-server=$CHAPERONE_LOCAL_PROXY --dump-dom $URL 2>/dev/null`

// toolRows are command lines that bring a protocol or a daemon of their own.
func toolRows() []row {
	return []row{
		{name: "git LFS", family: "Command line", quick: true, version: "git lfs version", install: "apt install git-lfs", run: lfsScript, calls: "read write push", reason: "no grant for github:git/lfs/verify-locks on acme/other",
			says:  map[string]string{"read": "foo", "write": "pushed and fetched", "push": "pushed and fetched"},
			known: "its objects lie on hosts of their own, to which signed addresses lead: describe those as a service with `allow_foreign: true`, see [services.md](services.md)"},
		{name: "docker", family: "Package managers", version: "docker --version && which dockerd docker-registry skopeo", install: "apt install docker.io", run: dockerScript, calls: "read write push", blind: true, reason: "no grant for oci:hide",
			says: map[string]string{"read": "Login Succeeded", "write": "pushed and pulled", "push": "pushed and pulled"}, known: "its daemon makes the requests: start that under `chaperone run`, or give it the variables of `chaperone session create`"},
		{name: "gsutil", family: "Clouds and browsers", version: "$D/google/bin/gsutil version", install: "pip install gsutil", run: gsutilScript, calls: "read write upload", reason: "no grant for google-storage:objects.delete",
			says: map[string]string{"read": "gs://acme/plan", "write": "put", "upload": "uploaded"}, known: "give it the handle as a refresh token, `-o Credentials:gs_oauth2_refresh_token=$HANDLE -o OAuth2:client_secret=$HANDLE` or in `.boto`; brings roots of its own, `run` gives it the bundle (by hand `-o Boto:ca_certificates_file=$SSL_CERT_FILE`)"},
		{name: "google-cloud-storage", family: "Clouds and browsers", version: `$D/google/bin/python -c "import importlib.metadata as m; print(m.version('google-cloud-storage'))"`, install: "pip install google-cloud-storage",
			run: "exec $D/google/bin/python $D/sdk.py storage $CALL", calls: "read write upload endless", reason: "no grant for google-storage:objects.delete", says: map[string]string{"read": "plan", "write": "put", "upload": "uploaded", "endless": "tick"}},
		{name: ".NET HttpClient", family: ".NET", version: "ls $D/dotnet/core/shared/Microsoft.NETCore.App && test -f $D/dotnet/Plain.dll", install: "part of .NET", run: dotnetScript, calls: plain, known: "sends its proxy password after a first 407"},
		{name: "Chromium by NSS", family: "Clouds and browsers", version: "which certutil >/dev/null && chromium --version 2>/dev/null", install: "apt install chromium libnss3-tools", run: nssScript, calls: "read", alone: true, door: true, reason: "no grant for shapes:hang",
			says: map[string]string{"read": "data: 2"}, known: "`certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n chaperone -i $NODE_EXTRA_CA_CERTS`, and `--proxy-server=$CHAPERONE_LOCAL_PROXY`"},
	}
}
