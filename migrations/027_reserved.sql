-- Reserved: the migration with this number replaces this file.
SELECT 1;
