<?php
// One request of PHP's curl. What to ask stands in the environment.
$c = curl_init(getenv("URL"));
curl_setopt_array($c, [
    CURLOPT_CUSTOMREQUEST => getenv("METHOD"),
    CURLOPT_HTTPHEADER => ["Authorization: Bearer " . getenv("TOKEN")],
    CURLOPT_WRITEFUNCTION => function ($c, $chunk) {
        echo $chunk;
        flush();
        return strlen($chunk);
    },
]);
if (getenv("BODY") !== "") {
    curl_setopt($c, CURLOPT_POSTFIELDS, getenv("BODY"));
}
if (!curl_exec($c)) {
    fwrite(STDERR, curl_error($c) . "\n");
    exit(1);
}
