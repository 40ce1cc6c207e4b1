/** Returns the page. The path is the only thing in it that is not constant. */
export const page = (path: string) => `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>nvent inspector</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="${escape(path)}/app.css">
<script type="module" src="${escape(path)}/app.js"></script>
</head>
<body><div id="app" data-path="${escape(path)}"></div><noscript>The inspector needs JavaScript.</noscript></body>
</html>
`

const escape = (text: string) => text.replace(/[&<>"']/g, character => `&#${character.charCodeAt(0)};`)
