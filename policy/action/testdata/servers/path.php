<?php // Answers with the path that it sees, decoded: php -S 127.0.0.1:PORT path.php
$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
if (!is_string($path)) { http_response_code(400); return true; }
header('Content-Type: text/plain');
echo rawurldecode($path);
