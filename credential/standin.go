package credential

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"sync"

	"chaperone/credential/internal/secret"
)

// StandIns are what a client finds in the place of a credential that has several
// parts, by the variables in which its SDKs look for them. They are nil for kinds whose
// handle is all. A GitHub App has the handle for its id: that is what its libraries put
// into the statements that they sign, with whatever key.
func (v *Vault) StandIns(credential, handle string) map[string]string {
	v.mu.RLock()
	k := v.credentials[credential]
	v.mu.RUnlock()
	switch {
	case k != nil && k.place.kind == KindAWS:
		return map[string]string{
			"AWS_ACCESS_KEY_ID": handle, "AWS_SECRET_ACCESS_KEY": secret.Text(v.standIn(handle)), "AWS_SESSION_TOKEN": "",
		}
	case k != nil && k.Kind == KindGitHubApp:
		key, err := standInKey()
		if err != nil {
			return nil // the handle itself is a token
		}
		return map[string]string{"GITHUB_APP_ID": handle, "GITHUB_APP_PRIVATE_KEY": key, "GITHUB_APP_INSTALLATION_ID": k.Settings["installation_id"]}
	}
	return nil
}

// Files are the texts of files in which SDKs look for a credential, by the variables
// that name them, with the handle in the place of each secret. Of Google that is the
// file of application default credentials: a service account's where the credential
// is one, since programs that read such a file read no other; else an authorised
// person's. Its library trades the handle at the token endpoint, where the proxy answers.
// Of AWS it is a web identity token, with which its SDKs assume a role by themselves.
func (v *Vault) Files(credential, handle string) (map[string]string, error) {
	v.mu.RLock()
	k := v.credentials[credential]
	v.mu.RUnlock()
	switch {
	case k != nil && k.Kind == KindBody && Covers("aws-*", k.Service):
		return map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": handle}, nil
	case k == nil || k.place.kind != KindBearer || !Covers("google-*", k.Service):
		return nil, nil
	}
	const endpoint = "https://oauth2.googleapis.com/token"
	file := map[string]string{"type": "authorized_user", "client_id": "chaperone", "client_secret": handle, "refresh_token": handle, "token_uri": endpoint}
	if k.Kind == KindGoogleAccount {
		key, err := standInKey()
		if err != nil {
			return nil, err
		}
		file = map[string]string{ // some libraries name the key, and all name the account
			"type": "service_account", "project_id": "chaperone", "private_key_id": handle, "private_key": key,
			"client_email": handle + "@chaperone.iam.gserviceaccount.com", "client_id": "0", "token_uri": endpoint,
		}
	}
	b, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing Google's credentials file: %w", err)
	}
	return map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": string(b) + "\n"}, nil
}

// standInKey is the private key in files of service accounts and of apps, one for as long as the
// program runs. It is no secret: what it signs is known by the handle that names it.
var standInKey = sync.OnceValues(func() (string, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return "", fmt.Errorf("making a stand-in key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", errors.New("making a stand-in key: it cannot be written")
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
})
