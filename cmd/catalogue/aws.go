package main

import (
	"encoding/json"
	"strings"

	"chaperone/policy"
	"chaperone/policy/action"
	"chaperone/policy/action/describe"
)

var awsSDK = pack{"github.com/aws/aws-sdk-go", "v1.55.8"}

// amazon is a service of AWS's with a model in the first Go SDK.
type amazon struct {
	model string // models/apis/…
	iam   string // its prefix in IAM
	hosts []string
	old   string // operations that another has replaced on the same request
	extra action.Service
}

func (a amazon) make(w *work) error {
	b, err := w.goFile(awsSDK, "models/apis/"+a.model+"/api-2.json")
	if err != nil {
		return err
	}
	w.License, w.Hosts, w.Refusal = "Apache-2.0, MIT", a.hosts, "aws"
	w.Env, w.Places, w.Handle = []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}, append([]string{"aws"}, a.extra.Places...), "AKIA"
	w.Signing = a.iam // IAM's prefix is the scope's name for all of these
	w.Resources, w.Arguments, w.Query, w.Copies, w.Also = a.extra.Resources, a.extra.Arguments, a.extra.Query, a.extra.Copies, a.extra.Also
	o := w.options("")
	o.Arguments = w.Arguments
	if o.Levels, err = w.iamLevels(a.iam); err != nil {
		return err
	}
	old := describe.Set(a.old)
	o.Keep = func(op *describe.Operation) bool { return !old[op.Name] }
	if err := w.read(a.model+".json", b, o); err != nil {
		return err
	}
	if w.shows {
		if err := w.awsExamples(a.model, b); err != nil {
			return err
		}
	}
	for _, path := range sorted(w.Paths) { // a bucket in the host's name leaves the path /
		if rest, ok := strings.CutPrefix(path, "/{Bucket}"); ok && (rest == "" || rest[0] == '?') {
			for _, method := range sorted(w.Paths[path]) {
				put(&w.Service, "/{Bucket}/"+rest, method, w.row(path, method))
			}
		}
	}
	return nil
}

// iamLevels are the levels that AWS publishes of its IAM actions, by the name of
// the call in lower case.
func (w *work) iamLevels(service string) (map[string]policy.Access, error) {
	b, err := w.npmFile(iamData, "data/actions/"+service+".json")
	if err != nil {
		return nil, err
	}
	var actions map[string]struct {
		Name        string
		AccessLevel string `json:"accessLevel"`
	}
	if err := json.Unmarshal(b, &actions); err != nil {
		return nil, err
	}
	levels := map[string]policy.Access{}
	for _, a := range actions { // some have two: "Permissions management, Write"
		for class := range strings.SplitSeq(a.AccessLevel, ", ") {
			level := map[string]policy.Access{
				"Read": policy.AccessRead, "List": policy.AccessList, "Write": policy.AccessWrite, "Tagging": policy.AccessWrite,
				"Permissions management": policy.AccessAdmin,
			}[class]
			if name := strings.ToLower(a.Name); action.Stronger(level, levels[name]) {
				levels[name] = level
			}
		}
	}
	return levels, nil
}

func awsVendors() []vendor {
	regional := func(name string) []string {
		return []string{name + ".amazonaws.com", name + ".*.amazonaws.com", name + "-fips.*.amazonaws.com", name + ".*.api.aws"}
	}
	named := func(kind string, members ...string) action.Service {
		s := action.Service{Arguments: members}
		for _, m := range members {
			s.Resources = append(s.Resources, action.ResourceRule{Type: kind, ID: "{" + m + "}"})
		}
		return s
	}
	sts := named("role", "RoleArn")
	sts.Places = []string{"body:WebIdentityToken"}
	return []vendor{
		{"aws-s3", amazon{model: "s3/2006-03-01", iam: "s3", old: "GetBucketNotification PutBucketNotification GetBucketLifecycle PutBucketLifecycle",
			hosts: []string{"s3.amazonaws.com", "s3.*.amazonaws.com", "s3.dualstack.*.amazonaws.com", "{Bucket}.s3.amazonaws.com", "{Bucket}.s3.*.amazonaws.com", "{Bucket}.s3.dualstack.*.amazonaws.com"},
			extra: action.Service{
				Resources: []action.ResourceRule{{Type: "object", ID: "{Bucket}/{Key}"}, {Type: "bucket", ID: "{Bucket}"}},
				Query: strings.Fields(`prefix delimiter max-keys marker continuation-token start-after fetch-owner encoding-type key-marker version-id-marker
					upload-id-marker max-uploads max-parts part-number-marker partNumber versionId list-type response-content-type
					response-content-language response-expires response-cache-control response-content-disposition response-content-encoding
					max-buckets bucket-region max-directory-buckets x-id`),
				Also:   s3Fields(),
				Copies: map[string]string{"CopyObject": "GetObject /{@x-amz-copy-source}", "UploadPartCopy": "GetObject /{@x-amz-copy-source}"},
			}}.make},
		{"aws-dynamodb", amazon{model: "dynamodb/2012-08-10", iam: "dynamodb", hosts: append(regional("dynamodb"), "*.ddb.*.amazonaws.com"),
			extra: named("table", "TableName", "ResourceArn", "TableArn", "BackupArn")}.make},
		{"aws-sqs", amazon{model: "sqs/2012-11-05", iam: "sqs", hosts: append(regional("sqs"), "*.queue.amazonaws.com", "queue.amazonaws.com"), extra: named("queue", "QueueUrl", "QueueName")}.make},
		{"aws-sns", amazon{model: "sns/2010-03-31", iam: "sns", hosts: regional("sns"), extra: named("topic", "TopicArn", "TargetArn", "PhoneNumber", "SubscriptionArn", "ResourceArn", "Name")}.make},
		{"aws-lambda", amazon{model: "lambda/2015-03-31", iam: "lambda", hosts: regional("lambda"),
			extra: action.Service{Resources: []action.ResourceRule{{Type: "function", ID: "{FunctionName}"}, {Type: "layer", ID: "{LayerName}"}}}}.make},
		{"aws-ec2", amazon{model: "ec2/2016-11-15", iam: "ec2", hosts: regional("ec2"),
			extra: named("resource", "InstanceId", "VolumeId", "SnapshotId", "ImageId", "GroupId", "VpcId", "SubnetId", "KeyName", "AllocationId", "NetworkInterfaceId")}.make},
		{"aws-iam", amazon{model: "iam/2010-05-08", iam: "iam", hosts: []string{"iam.amazonaws.com", "iam.*.amazonaws.com", "iam.global.api.aws"},
			extra: named("principal", "UserName", "RoleName", "GroupName", "PolicyArn", "InstanceProfileName")}.make},
		{"aws-sts", amazon{model: "sts/2011-06-15", iam: "sts", hosts: regional("sts"), extra: sts}.make},
		{"aws-secretsmanager", amazon{model: "secretsmanager/2017-10-17", iam: "secretsmanager", hosts: regional("secretsmanager"), extra: named("secret", "SecretId", "Name")}.make},
	}
}

// s3Fields are the fields by which an upload does more than upload, with the permission
// that S3 asks for beside (AWS Service Authorization Reference, Amazon S3).
func s3Fields() map[string]string {
	also := map[string]string{
		"CreateBucket @x-amz-acl": "PutBucketAcl admin", "CreateBucket @x-amz-grant-*": "PutBucketAcl admin",
		"CreateBucket @x-amz-object-ownership": "PutBucketOwnershipControls admin",
		"@x-amz-bypass-governance-retention":   "BypassGovernanceRetention admin",
	}
	for _, op := range []string{"PutObject", "CopyObject", "CreateMultipartUpload"} {
		also[op+" @x-amz-acl"], also[op+" @x-amz-grant-*"] = "PutObjectAcl admin", "PutObjectAcl admin"
		also[op+" @x-amz-tagging"] = "PutObjectTagging write"
		also[op+" @x-amz-object-lock-mode"], also[op+" @x-amz-object-lock-retain-until-date"] = "PutObjectRetention admin", "PutObjectRetention admin"
		also[op+" @x-amz-object-lock-legal-hold"] = "PutObjectLegalHold admin"
	}
	return also
}
